"""What the record of a run tells a comparison, or why it cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amtml_pl.comparison.estimates import can_be_averaged
from amtml_pl.config.overrides import overrides_of, value_of, without_places
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.files import are_numbers, is_held

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
        temperature: of the distillation; None where the record lacks it.
        coefficients: of the loss terms, by name.
        budget: what the run may spend, by name.
        facts: ``FACTS`` of the record, flat.
        metrics: what was measured, by name.
        timing: seconds, by name.
        teacher_passes: passes over the training split that each teacher has made for the cache; None where
            no cache was used.
        logits_stores: where the cache keeps the teachers' logits, ``<teacher>/<store>``; older records lack
            them.
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
    temperature: float | None
    coefficients: Mapping[str, float]
    budget: Mapping[str, Any]
    facts: Mapping[str, str]
    metrics: Mapping[str, float]
    timing: Mapping[str, float]
    teacher_passes: Mapping[str, float] | None
    logits_stores: tuple[str, ...]
    cached_views: float


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
    if record is None or record["status"] != "completed":
        raise NotCompared(unfinished(folder, record))
    folder.refuse_changed(record, *folder.tables)
    metrics = {name: float(value) for name, value in record["metrics"].items()}
    if metric not in metrics:
        raise LacksMetric(metric, tuple(metrics))
    if not can_be_averaged(metrics[metric]):
        raise NotCompared(f"{metric} is {metrics[metric]}")
    overrides = overrides_of(record["command"])
    experiment = record["experiment"] or ""
    settings = without_places(overrides)
    timing = numbers(record["timing"])
    if "fit_seconds" not in timing:
        raise NotCompared("has no timing.fit_seconds")
    cache = record.get("cache") or {}
    passes = cache.get("teacher_passes")
    temperature = numbers({"temperature": record.get("temperature") or 0.0})["temperature"]
    return Run(
        folder=folder.path,
        experiment=experiment,
        method=value_of("method", overrides),
        settings=tuple(word for word in settings if not word.startswith("method=")),
        seed=record["seed"],
        study=str(record.get("study") or f"{experiment} {' '.join(settings)}"),
        dataset=record["dataset"]["name"],
        digest=record["dataset"]["digest"],
        student=dict(record.get("student") or {}),
        teachers=tuple(record.get("teachers") or ()),
        temperature=temperature or None,
        coefficients=numbers(record.get("loss") or {}),
        budget=dict(record["budget"]),
        facts=dict(flat({name: record[name] for name in FACTS if name in record})),
        metrics={name: value for name, value in metrics.items() if can_be_averaged(value)},
        timing=timing,
        teacher_passes=None if passes is None else numbers(passes),
        logits_stores=tuple(s for s in cache.get("stores", ()) if s.rpartition("/")[2].startswith("logits-")),
        cached_views=numbers({"views": cache.get("views", 0)})["views"],
    )


def unfinished(folder: RunFolder, record: Mapping[str, Any] | None) -> str:
    """What has become of a run that has not completed."""
    lock = folder.path / ".lock"
    try:
        if lock.exists() and is_held(lock):
            return RUNNING
    except OSError:  # only who may write to a lock is told whether somebody holds it
        return UNTOLD if record is None else f"{record['status']}, or {RUNNING}: its lock may not be opened"
    return WITHOUT_WORDS if record is None else str(record["status"])


def numbers(found: object) -> dict[str, float]:
    """A mapping of names to numbers.

    Raises:
        ValueError: if it is something else, or one of them cannot be averaged.
    """
    if not are_numbers(found) or not isinstance(found, Mapping):
        raise ValueError(f"{found!r:.80} where numbers by name are expected")
    values = {str(name): float(value) for name, value in found.items()}
    if unusable := [name for name, value in values.items() if not can_be_averaged(value)]:
        raise ValueError(f"{unusable[0]:.80} is {values[unusable[0]]}")
    return values


def flat(fields: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Nested fields by a dotted name, as texts; the first weights of a student are the seed's affair."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from (
                (f"{name}.{inner}", text) for inner, text in flat(value) if inner != "student_initial"
            )
        elif name != "student_initial":
            yield name, str(value)
