"""What a run wrote while it trained, and its mean over the seeds of a group."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amtml_pl.comparison.estimates import can_be_averaged
from amtml_pl.comparison.groups import Group

Series = dict[float, float]  # by epoch


@dataclass(frozen=True)
class MeanCurve:
    """A number over the epochs, of several runs.

    Attributes:
        epochs: that any run has.
        mean: over the runs that have the epoch.
        low: the smallest of them.
        high: the largest of them.
    """

    epochs: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    @classmethod
    def of(cls, runs: Sequence[Series]) -> MeanCurve:
        """Of at least one run."""
        epochs = sorted({epoch for run in runs for epoch in run})
        values = [[run[epoch] for run in runs if epoch in run] for epoch in epochs]
        return cls(
            epochs, *([rounded(f(each)) for each in values] for f in (statistics.fmean, min, max))
        )  # fmt: skip


def curves_of(group: Group, broken: list[tuple[Path, str]]) -> dict[str, MeanCurve]:
    """Every number that the runs of a group have written per epoch, by name.

    Args:
        group: some of its runs may lack the file.
        broken: files that cannot be read are added here, with the reason.
    """
    by_metric: dict[str, list[Series]] = defaultdict(list)
    for run in group.runs:
        file = run.folder / "metrics.csv"
        try:
            for name, series in read_metrics(file).items():
                by_metric[name].append(series)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, csv.Error) as error:
            broken.append((file, str(error)))
    return {name: MeanCurve.of(runs) for name, runs in by_metric.items()}


def read_metrics(file: Path) -> dict[str, Series]:
    """The columns of a ``metrics.csv`` by name, by epoch; what is empty or cannot be averaged is no point.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no table of numbers with a column ``epoch``.
    """
    columns: dict[str, Series] = defaultdict(dict)
    for number, row in table_of(file, ("epoch",)):
        epoch = epoch_in(row, number)
        for name, text in row.items():
            if name not in ("epoch", "step") and text and can_be_averaged(value := number_in(text, number)):
                columns[name][epoch] = value
    return columns


def table_of(file: Path, needed: Sequence[str]) -> Iterable[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with their numbers, each as long as the first.

    Raises:
        ValueError: naming the line.
    """
    with file.open(newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        head = next(rows, [])
        if absent := [name for name in needed if name not in head]:
            raise ValueError(f"it has no column {', '.join(absent)}")
        if len(set(head)) < len(head):
            raise ValueError("it has two columns of one name")
        for row in rows:
            if len(row) != len(head):
                raise ValueError(f"line {rows.line_num} has {len(row)} cells, expected {len(head)}")
            yield rows.line_num, dict(zip(head, row, strict=True))


def epoch_in(row: Mapping[str, str], line: int) -> float:
    """A row's epoch.

    Raises:
        ValueError: naming the line.
    """
    epoch = number_in(row["epoch"], line)
    if not can_be_averaged(epoch) or epoch < 0 or not epoch.is_integer():
        raise ValueError(f"line {line} has epoch {epoch:g}, expected a whole number, 0 or more")
    return epoch


def number_in(text: str, line: int) -> float:
    """A cell's number.

    Raises:
        ValueError: naming the line.
    """
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"line {line} has {text!r:.40}, expected a number") from None


@dataclass(frozen=True)
class WeightsByClass:
    """The mean weight of each teacher on the images of each class, in the last epoch.

    Attributes:
        classes: their names.
        teachers: their names.
        weights: a row per teacher, a column per class.
    """

    classes: Sequence[str]
    teachers: Sequence[str]
    weights: Sequence[Sequence[float]]


def weights_by_class_of(group: Group, broken: list[tuple[Path, str]]) -> WeightsByClass | None:
    """The mean over the runs of a group whose ``weights_by_class.csv`` has the same classes and teachers."""
    found: list[WeightsByClass] = []
    for run in group.runs:
        file = run.folder / "weights_by_class.csv"
        try:
            found.append(read_weights_by_class(file))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, csv.Error) as error:
            broken.append((file, str(error)))
    alike = [each for each in found if (each.classes, each.teachers) == (found[0].classes, found[0].teachers)]
    if not alike:
        return None
    weights = [[rounded(statistics.fmean(cell)) for cell in zip(*rows, strict=True)]
               for rows in zip(*(each.weights for each in alike), strict=True)]  # fmt: skip
    return WeightsByClass(alike[0].classes, alike[0].teachers, weights)


def read_weights_by_class(file: Path) -> WeightsByClass:
    """The last epoch of a ``weights_by_class.csv`` with the columns epoch, class and one per teacher.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no such table.
    """
    rows = [(epoch_in(row, line), line, row) for line, row in table_of(file, ("epoch", "class"))]
    if not rows:
        raise ValueError("it has no rows")
    last = max(epoch for epoch, _, _ in rows)
    of_last = [(line, row) for epoch, line, row in rows if epoch == last]
    teachers = [name for name in of_last[0][1] if name not in ("epoch", "class")]
    weights = [[number_in(row[teacher], line) for line, row in of_last] for teacher in teachers]
    if not all(can_be_averaged(weight) for row in weights for weight in row):
        raise ValueError("it has weights that are not finite")
    classes = [row["class"] for _, row in of_last]
    if len(set(classes)) < len(classes):
        raise ValueError(f"it has a class twice in epoch {last:g}")
    return WeightsByClass(classes, teachers, weights)


def rounded(value: float) -> float:
    """To five digits: no eye sees more, and a page of many curves stays small."""
    return float(f"{value:.5g}")
