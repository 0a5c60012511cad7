"""Whom the student listens to on which class: a table, a file, a heat map."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.dashboard.drawing import READABLE, new_figure, short
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

    Args:
        file: where it lies.
        teachers: the M teachers in order.
        classes: the K class names.
    """

    def __init__(self, file: Path, teachers: Sequence[str], classes: Sequence[str]) -> None:
        self.file, self.classes = file, tuple(classes)
        self.columns = ("epoch", "class", *teachers)
        self.rows: list[list[str]] = []

    def go_on_from(self, epoch: int) -> None:
        """Takes over the rows of the epochs before a resumed one; of a damaged file none, with a warning."""
        if not epoch or not self.file.exists():
            return
        try:
            self.rows = [row for row in self.written() if int(row[0]) < epoch]
        except (OSError, ValueError, csv.Error) as error:
            warnings.warn(
                f"{self.file} cannot be gone on with and begins with epoch {epoch}: {error}.", stacklevel=2
            )

    def written(self) -> list[list[str]]:
        """The rows of the file.

        Raises:
            ValueError: if it is no such table.
        """
        with self.file.open(newline="", encoding="utf-8") as lines:
            head, *rows = csv.reader(lines, strict=True)
        if wrong := [row for row in (head, *rows) if len(row) != len(self.columns)]:
            raise ValueError(f"a row of {len(wrong[0])} cells, expected {len(self.columns)}")
        return rows

    def add(self, epoch: int, means: Float[Tensor, "K M"]) -> None:
        """Adds an epoch and writes the file; a class without samples has no row."""
        for name, row in zip(self.classes, means, strict=True):
            if not bool(row.isnan().any()):
                self.rows.append([str(epoch), name, *(f"{weight:.6g}" for weight in row.tolist())])
        text = io.StringIO(newline="")
        csv.writer(text).writerows([self.columns, *self.rows])
        write_text(self.file, text.getvalue())


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
