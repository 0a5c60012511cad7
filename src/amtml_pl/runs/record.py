"""What ``run.json`` may say, so that whoever reads a run folder can rely on it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from amtml_pl.system.files import are_numbers

STATUSES = ("completed", "failed", "interrupted")
# What a completed run has measured, what it is summed up by, and which files its record seals.
MEASURED = {
    "metrics": ("val/acc", "val/acc_last", "test/acc", "test/acc_last"),
    "timing": ("fit_seconds", "images_per_second"),
    "files": ("config.yaml", "metrics.csv"),
}


def record_problems(record: Mapping[str, Any]) -> Iterator[str]:
    """What a record has wrong, one sentence each; but for its status, it may lack whatever it likes."""
    for place, (expected, is_right) in {**FIELDS, **OPTIONAL}.items():
        first, _, second = place.partition(".")
        found = record.get(first, ABSENT)
        if second:
            found = found.get(second, ABSENT) if isinstance(found, Mapping) else ABSENT
        if (found is not ABSENT or place == "status") and not is_right(found):
            yield f"{place} is {shown(found)}, expected {expected}"
    teachers = record.get("teachers")
    for name, facts in teachers.items() if isinstance(teachers, Mapping) else ():
        if not isinstance(facts, Mapping):
            yield f"teachers.{name:.80} is {shown(facts)}, expected a mapping"


def absent_fields(record: Mapping[str, Any]) -> list[str]:
    """What a record lacks to be gone on with, or to be summed up."""
    wanted = {place: place.partition(".") for place in FIELDS if place.partition(".")[0] not in MEASURED}
    absent = [place for place, (first, _, second) in wanted.items() if not has(record, first, second)]
    if record.get("status") == "completed":
        taught = [
            f"teacher/{name}/{split}/acc" for name in record.get("teachers", {}) for split in ("val", "test")
        ]
        absent += [f"metrics.{name}" for name in taught if not has(record, "metrics", name)]
        absent += [f"{node}.{name}" for node, names in MEASURED.items() for name in names
                   if not has(record, node, name)]  # fmt: skip
    return absent


def has(record: Mapping[str, Any], first: str, second: str) -> bool:
    """Whether a record has a field, one level down where it is named."""
    return first in record and (not second or second in record[first])


class Absent:
    """What is not there."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


def shown(value: object) -> str:
    """A value in a message: short, whatever it holds."""
    return f"a {type(value).__name__}" if isinstance(value, Mapping | list) else f"{value!r:.80}"


def is_command(value: object) -> bool:
    """Whether it is a text that a shell could take apart."""
    try:
        return isinstance(value, str) and bool(shlex.split(value))
    except ValueError:
        return False


def are_texts(value: object) -> bool:
    """Return whether it maps names to texts."""
    return isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())


FIELDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "status": (f"one of {', '.join(STATUSES)}", lambda value: isinstance(value, str) and value in STATUSES),
    "experiment": ("a name or null", lambda value: value is None or isinstance(value, str)),
    "seed": ("a whole number", lambda value: type(value) is int),
    "command": ("what repeats the run", is_command),
    "dataset": ("a mapping", lambda value: isinstance(value, Mapping)),
    "dataset.name": ("a name", lambda value: isinstance(value, str)),
    "dataset.digest": ("a text", lambda value: isinstance(value, str)),
    "teachers": ("a mapping", lambda value: isinstance(value, Mapping)),
    "metrics": ("numbers by name", are_numbers),
    "timing": ("numbers by name", are_numbers),
    "files": ("digests by name", are_texts),
}
# What only some runs have.
OPTIONAL: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "cache": ("a mapping or null", lambda value: value is None or isinstance(value, Mapping)),
    "cache.stores": (
        "a list of names",
        lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value),
    ),
}
