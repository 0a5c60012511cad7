"""The runs below a folder, and which of them cannot be compared and why."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amtml_pl.comparison.estimates import can_be_averaged
from amtml_pl.errors import UserError
from amtml_pl.json_file import are_numbers
from amtml_pl.overrides import overrides_of, value_of, without_places
from amtml_pl.runs import RunFolder
from amtml_pl.sweep_folder import is_held

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


@dataclass(frozen=True)
class LeftOut:
    """A run that is not compared.

    Attributes:
        folder: where it lies.
        reason: why, in a few words.
    """

    folder: Path
    reason: str


@dataclass
class FoundRuns:
    """The runs below a folder.

    Attributes:
        compared: those that are complete and whole.
        left_out: all others.
    """

    compared: list[Run] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def find_runs(folder: Path, metric: str) -> FoundRuns:
    """All runs below a folder.

    Args:
        folder: any tree of run folders.
        metric: the name of the measured number that a run must have to be compared.

    Raises:
        UserError: if the folder does not exist, or holds nothing to compare.
    """
    if not folder.is_dir():
        raise UserError(f"{folder.resolve()} is not a folder.", fix="runs=outputs/runs")
    found = FoundRuns()
    by_seed: dict[tuple[str, str, str, int], Path] = {}
    others: set[str] = set()
    for run_folder in run_folders(folder):
        try:
            run = read_run(RunFolder(run_folder), metric)
            twin = by_seed.setdefault((run.digest, str(run.student), run.study, run.seed), run_folder)
        except LacksMetric as lack:
            others.update(lack.others)
            found.left_out.append(LeftOut(run_folder, str(lack)))
        except (UserError, NotCompared) as reason:
            found.left_out.append(LeftOut(run_folder, first_line(reason)))
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            found.left_out.append(LeftOut(run_folder, f"damaged: {type(error).__name__}: {error!s:.200}"))
        else:
            if twin == run_folder:
                found.compared.append(run)
            else:
                repeats = f"repeats seed {run.seed} of the same study in {shown(twin, folder)}"
                found.left_out.append(LeftOut(run_folder, repeats))
    if not found.compared:
        raise without_metric(folder, metric, others) or UserError(
            nothing_found(folder, found.left_out), fix=remedy(found.left_out)
        )
    return found


RUNNING = "still running"
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


def without_metric(folder: Path, metric: str, others: Collection[str]) -> UserError | None:
    """What to say where the completed runs have other metrics only; None where none has completed."""
    if not others:
        return None
    names = sorted(others, key=lambda name: (name.startswith("teacher/"), name))
    close = difflib.get_close_matches(metric, names, n=1) or names[:1]
    return UserError(
        f"No completed run below {folder.resolve()} has {metric!r}; they have {', '.join(names):.600}.",
        fix=f"metric={close[0]}",
    )


def run_folders(folder: Path) -> Iterator[Path]:
    """Every folder that holds a run, whatever has become of it, in the order of their paths."""
    for place, subfolders, files in os.walk(folder):
        subfolders.sort()
        if "run.json" in files or ("config.yaml" in files and ".lock" in files):
            yield Path(place)


def read_run(folder: RunFolder, metric: str) -> Run:
    """What a completed run says of itself.

    Raises:
        UserError: if its record cannot be read, or is of another format.
        NotCompared: if it has not completed, or was never measured.
    """
    record = folder.record()
    if record is None or record["status"] != "completed":
        raise NotCompared(unfinished(folder, record))
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
    passes = (record.get("cache") or {}).get("teacher_passes")
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
    )


def unfinished(folder: RunFolder, record: Mapping[str, Any] | None) -> str:
    """What has become of a run that has not completed."""
    lock = folder.path / ".lock"
    with suppress(OSError):  # a folder that may only be read: it cannot be told
        if lock.exists() and is_held(lock):
            return RUNNING
    if record is None:
        return WITHOUT_WORDS
    return str(record["status"])


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


def nothing_found(folder: Path, left_out: Sequence[LeftOut]) -> str:
    """Why there is nothing to compare."""
    if not left_out:
        return f"No run lies below {folder.resolve()}."
    listed = "".join(f"\n  - {shown(out.folder, folder)}: {out.reason}" for out in left_out[:20])
    more = f"\n  ... and {len(left_out) - 20} more" if len(left_out) > 20 else ""
    return f"No completed run lies below {folder.resolve()}:{listed}{more}"


def remedy(left_out: Sequence[LeftOut]) -> str:
    """What brings something to compare."""
    reasons = {out.reason for out in left_out}
    if not left_out:
        return "python -m amtml_pl.train experiment=digits_amtml"
    if RUNNING in reasons:
        return "the same command again, once a run has ended"
    if reasons & {"interrupted", "failed", WITHOUT_WORDS}:
        return "repeat the command of a run, which run.json in its folder has: it goes on with it"
    return "repeat the command of a run, which run.json in its folder has, with force=true: it starts over"


def shown(run_folder: Path, below: Path) -> str:
    """A run's folder as the person sees it who has named the folder above."""
    return str(run_folder.relative_to(below)) if run_folder != below else str(run_folder)


def first_line(reason: Exception) -> str:
    """A reason without what would mend it."""
    return (reason.what if isinstance(reason, UserError) else str(reason)).splitlines()[0]
