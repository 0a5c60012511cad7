"""Whom the student listens to on which class: a table, a file, a heat map."""

from __future__ import annotations

import csv
import io
import math
import warnings
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.dashboard.drawing import READABLE, new_figure, short
from amtml_pl.epoch_rows import epoch_rows
from amtml_pl.runs import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mean_weights_by_class(
    weights: Float[Tensor, "N M"], labels: Int64[Tensor, " N"], classes: int
) -> Float[Tensor, "K M"]:
    """The mean weight of each teacher over the samples of each class; NaN for a class without samples."""
    sums = torch.zeros(classes, weights.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels, weights.double())
    return sums / torch.bincount(labels, minlength=classes)[:, None]


class WeightsByClass:
    """``weights_by_class.csv``: a row per epoch and class, with the mean weight of each teacher.

    An epoch's rows are appended, so that an epoch costs the same however many there were before. Those of
    one that was killed on the way are dropped by the run that goes on.

    Args:
        file: where it lies.
        teachers: the M teachers in order.
        classes: the K class names.
    """

    def __init__(self, file: Path, teachers: Sequence[str], classes: Sequence[str]) -> None:
        self.file, self.classes = file, tuple(classes)
        self.columns = ["epoch", "class", *teachers]

    def go_on_from(self, epoch: int) -> None:
        """Keeps the rows of the epochs before a resumed one; of a damaged file none, with a warning."""
        rows = []
        if epoch and self.file.exists():
            try:
                rows = [row for row in self.written() if int(row[0]) < epoch]
            except (OSError, ValueError) as error:
                warnings.warn(
                    f"{self.file} cannot be gone on with and begins with epoch {epoch}: {error}.",
                    stacklevel=2,
                )
        if rows:
            write_text(self.file, as_csv([self.columns, *rows]))
        else:
            self.file.unlink(missing_ok=True)

    def written(self) -> list[list[str]]:
        """The rows of the file, without a last one that has no end.

        Raises:
            OSError: if it cannot be read.
            ValueError: if it is no such table.
        """
        with self.file.open(newline="", encoding="utf-8") as lines:
            columns, rows = epoch_rows(line for line in lines if line.endswith("\n"))
        if columns != self.columns:
            raise ValueError(f"its columns are {', '.join(columns)}; expected {', '.join(self.columns)}")
        return rows

    def of_last_epoch(self) -> Float[Tensor, "K M"] | None:
        """The means of the last epoch in the file; None where it cannot be read, or has none."""
        means = torch.full((len(self.classes), len(self.columns) - 2), math.nan, dtype=torch.float64)
        try:
            rows = self.written()
            for epoch, name, *weights in rows:
                if epoch == rows[-1][0]:
                    means[self.classes.index(name)] = torch.tensor([float(weight) for weight in weights])
        except (OSError, ValueError):
            return None
        return means if rows else None

    def add(self, epoch: int, means: Float[Tensor, "K M"]) -> None:
        """Appends an epoch; a class without samples has no row."""
        rows: list[list[object]] = [] if self.file.exists() else [[*self.columns]]
        for name, row in zip(self.classes, means.tolist(), strict=True):
            if not math.isnan(row[0]):
                rows.append([epoch, name, *(f"{weight:.6g}" for weight in row)])
        with self.file.open("a", newline="", encoding="utf-8") as file:
            file.write(as_csv(rows))


def as_csv(rows: Iterable[Sequence[object]]) -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def draw_weights_by_class(
    means: Float[Tensor, "K M"], classes: Sequence[str], teachers: Sequence[str]
) -> Figure:
    """Teachers against classes, the colour being the mean weight."""
    few = len(classes) <= READABLE
    figure = new_figure(2 + 0.45 * min(len(classes), READABLE), 1.6 + 0.5 * len(teachers))
    axes = figure.add_subplot()
    shown = axes.imshow(means.T.numpy(), aspect="auto", cmap="viridis", vmin=0.0)
    axes.set_yticks(range(len(teachers)), [short(name) for name in teachers])
    if few:
        axes.set_xticks(range(len(classes)), [short(name) for name in classes], rotation=45, ha="right")
        for k, m in product(range(means.shape[0]), range(means.shape[1])):
            dark = float(means[k, m]) < 0.6 * float(means.nan_to_num().max())
            colour = "white" if dark else "black"
            axes.text(k, m, f"{means[k, m]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    else:
        axes.set_xlabel(f"{len(classes)} classes in order")
    figure.colorbar(shown, ax=axes, label="mean weight")
    return figure
