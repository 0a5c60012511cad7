"""Facts of a run that its loggers show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from amtml_pl.training.stages import Ready


@dataclass(frozen=True)
class RunFacts:
    """Facts of a run that a logger needs before its first number.

    Attributes:
        name: of the run folder, the same for a resumed run.
        tags: experiment, method, seed, student and teachers, as typed; those that the command names.
        teachers: their names in order.
        config: the resolved configuration as plain values.
        resumed: True if the fit continues from a checkpoint.
    """

    name: str
    tags: Mapping[str, str]
    teachers: tuple[str, ...]
    config: Mapping[str, Any]
    resumed: bool

    def words(self) -> list[str]:
        """Return the tags as words of at most 64 characters, one per teacher: ``method=amtml``."""
        words = [f"{name}={value}" for name, value in self.tags.items() if name != "teachers"]
        return [word[:64] for word in (*words, *(f"teacher={name}" for name in self.teachers))]


def facts_of(ready: Ready, *, resumed: bool) -> RunFacts:
    """Return the facts of a run that is about to be fitted."""
    request = ready.request
    teachers = tuple(teacher.name for teacher in ready.teachers)
    tags = {
        "experiment": request.experiment or "",
        "method": request.choices.get("method", ""),
        "seed": str(request.settings.seed),
        "student": request.choices.get("student", ""),
        "teachers": ",".join(teachers),
    }
    return RunFacts(
        name=request.folder.path.name,
        tags={name: value for name, value in tags.items() if value},
        teachers=teachers,
        config=yaml.safe_load(request.settings.text()),
        resumed=resumed,
    )
