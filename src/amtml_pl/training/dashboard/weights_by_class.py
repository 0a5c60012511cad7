"""Teacher weights by class: a table, a file, a heat map."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.system.files import write_text
from amtml_pl.training.dashboard.drawing import READABLE, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def mean_weights_by_class(
    weights: Float[Tensor, "N M"], labels: Int64[Tensor, " N"], classes: int
) -> Float[Tensor, "K M"]:
    """Return each teacher's mean weight per class, (K, M); NaN without samples."""
    sums = torch.zeros(classes, weights.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels, weights.double())
    return sums / torch.bincount(labels, minlength=classes)[:, None]


def write_weights_by_class(
    file: Path, teachers: Sequence[str], classes: Sequence[str], epochs: Mapping[int, Float[Tensor, "K M"]]
) -> None:
    """Write a row per epoch and class with samples; without epochs, remove the file."""
    if not epochs:
        file.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(["epoch", "class", *teachers])
    for epoch, means in epochs.items():
        for name, row in zip(classes, means.tolist(), strict=True):
            if not math.isnan(row[0]):
                table.writerow([epoch, name, *(f"{weight:.6g}" for weight in row)])
    write_text(file, text.getvalue())


def draw_weights_by_class(
    means: Float[Tensor, "K M"], classes: Sequence[str], teachers: Sequence[str]
) -> Figure:
    """Draw teachers against classes, the colour being the mean weight."""
    largest = float(means.nan_to_num().max())
    figure = new_figure(2 + 0.45 * min(len(classes), READABLE), 1.6 + 0.5 * len(teachers))
    axes = figure.add_subplot()
    image = axes.imshow(means.T.numpy(), aspect="auto", cmap="viridis", vmin=0.0)
    axes.set_yticks(range(len(teachers)), [shorten(name) for name in teachers])
    if len(classes) <= READABLE:
        axes.set_xticks(range(len(classes)), [shorten(name) for name in classes], rotation=45, ha="right")
        for k, m in product(range(means.shape[0]), range(means.shape[1])):
            colour = "white" if float(means[k, m]) < 0.6 * largest else "black"
            axes.text(k, m, f"{means[k, m]:.2f}", ha="center", va="center", fontsize=7, color=colour)
    else:
        axes.set_xlabel(f"{len(classes)} classes in order")
    figure.colorbar(image, ax=axes, label="mean weight")
    return figure
