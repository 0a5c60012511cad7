"""What the record of a run tells a comparison, or why it cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amtml_pl.comparison.estimates import can_be_averaged
from amtml_pl.config.overrides import overrides_of, value_of, without_places
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord
from amtml_pl.system.files import is_held

# What a run's record calls the same for all seeds, beside its budget: tells apart what was typed alike.
FACTS = ("temperature", "loss", "weighting", "loop", "teacher_source", "budget")


@dataclass(frozen=True)
class Run:
    """What a completed run says of itself, checked.

    Attributes:
        folder: where it lies.
        experiment: its name; empty where it has none.
        method: what its command says after ``method=``; empty where it says nothing.
        settings: the other overrides of its command that say what was studied.
        seed: of the student and the batch order.
        study: the same for all seeds of what is otherwise equal.
        dataset: the data set's name.
        digest: of its pixels.
        student: the student's facts, by name.
        teachers: their names.
        temperature: of the distillation.
        coefficients: of the loss terms, by name.
        budget: what the run may spend, by name.
        facts: ``FACTS`` of the record, flat.
        metrics: what was measured, by name.
        timing: seconds, by name.
        teacher_passes: passes over the training split that each teacher has made for the cache; None where
            no cache was used.
        logits_stores: where the cache keeps the teachers' logits, ``<teacher>/<store>``.
        cached_views: of the training images that the run needs of the cache.
    """

    folder: Path
    experiment: str
    method: str
    settings: tuple[str, ...]
    seed: int
    study: str
    dataset: str
    digest: str
    student: Mapping[str, Any]
    teachers: tuple[str, ...]
    temperature: float
    coefficients: Mapping[str, float]
    budget: Mapping[str, Any]
    facts: Mapping[str, str]
    metrics: Mapping[str, float]
    timing: Mapping[str, float]
    teacher_passes: Mapping[str, float] | None
    logits_stores: tuple[str, ...]
    cached_views: int


RUNNING = "still running"
UNTOLD = "cannot be told to have ended: its lock may not be opened"
WITHOUT_WORDS = "ended without saying why"


class NotCompared(Exception):  # noqa: N818 - no error: a run may well be unfinished
    """Why a run is left out."""


class LacksMetric(NotCompared):
    """A completed run has not measured what is compared.

    Attributes:
        others: the names of what it has measured.
    """

    def __init__(self, metric: str, others: Sequence[str]) -> None:
        known = ", ".join(name for name in others if not name.startswith("teacher/"))
        super().__init__(f"has no {metric}; it has {known:.300}")
        self.others = others


def read_run(folder: RunFolder, metric: str) -> Run:
    """What a completed run says of itself.

    Raises:
        UserError: if its record cannot be read, or is of another format, or its tables were changed.
        NotCompared: if it has not completed, or was never measured.
    """
    record = folder.record()
    if record is None or record.status != "completed":
        raise NotCompared(unfinished(folder, record))
    folder.refuse_changed(record, *folder.tables)
    metrics = record.metrics
    if metric not in metrics:
        raise LacksMetric(metric, tuple(metrics))
    if not can_be_averaged(metrics[metric]):
        raise NotCompared(f"{metric} is {metrics[metric]}")
    overrides = overrides_of(record.command)
    plain, cache = record.model_dump(include={*FACTS}), record.cache
    return Run(
        folder=folder.path,
        experiment=record.experiment or "",
        method=value_of("method", overrides),
        settings=tuple(word for word in without_places(overrides) if not word.startswith("method=")),
        seed=record.seed,
        study=record.study,
        dataset=record.dataset.name,
        digest=record.dataset.digest,
        student=record.student.model_dump(),
        teachers=tuple(record.teachers),
        temperature=numbers({"temperature": record.temperature})["temperature"],
        coefficients=numbers(record.loss),
        budget=record.budget,
        facts=dict(flat({name: plain[name] for name in FACTS})),
        metrics={name: value for name, value in metrics.items() if can_be_averaged(value)},
        timing=numbers(record.timed().model_dump()),
        teacher_passes=None if cache is None else numbers(cache.teacher_passes),
        logits_stores=tuple(
            name for name in (cache.stores if cache else ()) if name.rpartition("/")[2].startswith("logits-")
        ),
        cached_views=0 if cache is None else cache.views,
    )


def unfinished(folder: RunFolder, record: RunRecord | None) -> str:
    """Return what has become of a run that has not completed."""
    try:
        if is_held(folder.lock_file):
            return RUNNING
    except OSError:  # only who may write to a lock learns whether a process holds it
        return UNTOLD if record is None else f"{record.status}, or {RUNNING}: its lock may not be opened"
    return WITHOUT_WORDS if record is None else record.status


def numbers(values: Mapping[str, float]) -> dict[str, float]:
    """Return numbers by name.

    Raises:
        NotCompared: if one of them cannot be averaged.
    """
    if unusable := [name for name, value in values.items() if not can_be_averaged(value)]:
        raise NotCompared(f"{unusable[0]:.80} is {values[unusable[0]]}")
    return dict(values)


def flat(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested fields by a dotted name, as texts; the first weights of a student are the seed's affair."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from (
                (f"{name}.{inner}", text) for inner, text in flat(value) if inner != "student_initial"
            )
        elif name != "student_initial":
            yield name, str(value)
