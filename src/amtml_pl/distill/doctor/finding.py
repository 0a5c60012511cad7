"""What a check has to say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Attributes:
        name: what it is called in ``expected_defects``: the kind of defect, and whose it is.
        what: a sentence on it, with what was found and what was expected.
    """

    name: str
    what: str
