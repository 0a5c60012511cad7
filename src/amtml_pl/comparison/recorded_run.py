"""Read a completed run for a comparison, or find why it cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amtml_pl.comparison.estimates import can_be_averaged
from amtml_pl.config.overrides import overrides_of, value_of, without_places
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord
from amtml_pl.system.files import is_held

# Equal for all seeds of a study; these separate runs of equal overrides.
FACTS = ("temperature", "loss", "weighting", "loop", "teacher_source", "budget")
RUNNING = "still running"
UNKNOWN = "may still be running (its lock cannot be opened)"
UNRECORDED = "ended before run.json was written"


@dataclass(frozen=True)
class Run:
    """A completed run.

    Attributes:
        record: its metrics are those that can be averaged.
        method: the value of ``method=`` in its command; empty without one.
        settings: the other overrides of its command that describe what was studied.
    """

    folder: Path
    record: RunRecord
    method: str
    settings: tuple[str, ...]

    @property
    def experiment(self) -> str:
        """Return the experiment's name; empty if there is none."""
        return self.record.experiment or ""

    @property
    def facts(self) -> dict[str, str]:
        """Return the ``FACTS`` of the record, flat."""
        fields = self.record.model_dump(include={*FACTS})
        return dict(flat_texts({name: fields[name] for name in FACTS}))


class NotCompared(Exception):  # noqa: N818 - not an error: a run may be unfinished
    """The reason why a run is left out, perhaps with its other metrics."""

    def __init__(self, reason: str, metrics: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.metrics = metrics


def read_run(folder: RunFolder, metric: str) -> Run:
    """Return a completed run.

    Raises:
        UserError: if its record cannot be read, or is of another format, or its tables were changed.
        NotCompared: if it has not completed, or lacks a usable number.
    """
    record = folder.record()
    if record is None or record.status != "completed":
        raise NotCompared(unfinished(folder, record))
    if record.debug is not None:
        raise NotCompared(f"has debug={record.debug}, which is not a result")
    folder.refuse_changed(record, *folder.tables)
    if metric not in record.metrics:
        known = ", ".join(name for name in record.metrics if not name.startswith("teacher/"))
        raise NotCompared(f"lacks the metric {metric} (its metrics: {known:.300})", tuple(record.metrics))
    passes = record.cache.teacher_passes if record.cache else {}
    drawn = ({metric: record.metrics[metric]}, {"temperature": record.temperature}, record.loss,
             record.timed().model_dump(), passes)  # fmt: skip
    for name, value in (item for numbers in drawn for item in numbers.items()):
        if not can_be_averaged(value):
            raise NotCompared(f"{name:.80} is not a usable number (got {value})")
    overrides = overrides_of(record.command)
    metrics = {name: value for name, value in record.metrics.items() if can_be_averaged(value)}
    return Run(
        folder.path,
        record.model_copy(update={"metrics": metrics}),
        value_of("method", overrides),
        tuple(word for word in without_places(overrides) if not word.startswith("method=")),
    )


def unfinished(folder: RunFolder, record: RunRecord | None) -> str:
    """Return the state of a run that has not completed."""
    try:
        if is_held(folder.lock_file):
            return RUNNING
    except OSError:  # only with write access can a lock be tested
        return UNKNOWN if record is None else f"{record.status}, or {RUNNING} (its lock cannot be opened)"
    return UNRECORDED if record is None else record.status


def flat_texts(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield nested fields by dotted name as texts, without the student's initial weights."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", text) for inner, text in flat_texts(value))
        elif name != "student_initial":
            yield name, str(value)
