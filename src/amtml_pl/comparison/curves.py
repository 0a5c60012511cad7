"""Read a run's values per epoch, and average them over the seeds of a group."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from amtml_pl.comparison.estimates import can_be_averaged
from amtml_pl.comparison.groups import Group
from amtml_pl.runs.epoch_table import read_epochs

Series = dict[int, float]  # by epoch
Content = TypeVar("Content")


@dataclass(frozen=True)
class MeanCurve:
    """A value by epoch: mean, smallest and largest of the runs with that epoch."""

    epochs: Sequence[int]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    @classmethod
    def of(cls, runs: Sequence[Series]) -> MeanCurve:
        """Return the mean of at least one run."""
        epochs = sorted({epoch for run in runs for epoch in run})
        values = [[run[epoch] for run in runs if epoch in run] for epoch in epochs]
        return cls(epochs, *([rounded(f(each)) for each in values] for f in (statistics.fmean, min, max)))


@dataclass(frozen=True)
class WeightsByClass:
    """The teachers' mean weights (rows) by class (columns) in the last epoch."""

    classes: Sequence[str]
    teachers: Sequence[str]
    weights: Sequence[Sequence[float]]


def curves_of(group: Group, broken: list[tuple[Path, str]]) -> dict[str, MeanCurve]:
    """Return the mean curve of every value in ``metrics.csv``; add unreadable files to ``broken``."""
    by_metric: dict[str, list[Series]] = defaultdict(list)
    for columns in contents(group, "metrics.csv", read_metrics, broken):
        for name, series in columns.items():
            by_metric[name].append(series)
    return {name: MeanCurve.of(runs) for name, runs in by_metric.items()}


def weights_by_class_of(group: Group, broken: list[tuple[Path, str]]) -> WeightsByClass | None:
    """Return the mean weights by class of runs with equal classes and teachers."""
    found = contents(group, "weights_by_class.csv", read_weights_by_class, broken)
    alike = [each for each in found if (each.classes, each.teachers) == (found[0].classes, found[0].teachers)]
    if not alike:
        return None
    tables = zip(*(each.weights for each in alike), strict=True)
    weights = [[rounded(statistics.fmean(cell)) for cell in zip(*rows, strict=True)] for rows in tables]
    return WeightsByClass(alike[0].classes, alike[0].teachers, weights)


def contents(
    group: Group, name: str, read: Callable[[Path], Content], broken: list[tuple[Path, str]]
) -> list[Content]:
    """Return the content of a file in each run that has a readable one."""
    found = []
    for run in group.runs:
        try:
            found.append(read(run.folder / name))
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            broken.append((run.folder / name, str(error)))
    return found


def read_metrics(file: Path) -> dict[str, Series]:
    """Return the columns of a ``metrics.csv``, without values that are empty or not finite."""
    columns: dict[str, Series] = defaultdict(dict)
    for row in read_epochs(file):
        for name, text in row.items():
            if name not in ("epoch", "step") and text and can_be_averaged(value := float(text)):
                columns[name][int(row["epoch"])] = value
    return columns


def read_weights_by_class(file: Path) -> WeightsByClass:
    """Return the last epoch of a table with columns epoch, class and teachers."""
    rows = read_epochs(file)
    if "class" not in rows[0]:
        raise ValueError("the column class is missing")
    last = max(int(row["epoch"]) for row in rows)
    of_last = [row for row in rows if int(row["epoch"]) == last]
    teachers = [name for name in rows[0] if name not in ("epoch", "class")]
    weights = [[float(row[teacher]) for row in of_last] for teacher in teachers]
    if not all(can_be_averaged(weight) for row in weights for weight in row):
        raise ValueError("some weights are not finite")
    classes = [row["class"] for row in of_last]
    if len(set(classes)) < len(classes):
        raise ValueError(f"epoch {last} has the same class twice")
    return WeightsByClass(classes, teachers, weights)


def rounded(value: float) -> float:
    """Return a value with five digits, which keeps a page of many curves small."""
    return float(f"{value:.5g}")
