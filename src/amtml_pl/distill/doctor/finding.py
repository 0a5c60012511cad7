"""Result of a check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Defect of a run; ``expected_defects`` lists it by its name."""

    name: str
    what: str
