"""What a check has to say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run; ``expected_defects`` lists it by its name."""

    name: str
    what: str
