"""Which classes a network takes for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.training.dashboard.drawing import READABLE, new_figure, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def confusion_matrix(
    named: Int64[Tensor, " N"], labels: Int64[Tensor, " N"], classes: int
) -> Int64[Tensor, "K K"]:
    """How many samples of each class (row) were named as each class (column)."""
    return torch.bincount(labels * classes + named, minlength=classes * classes).view(classes, classes)


def shares_of_rows(counts: Int64[Tensor, "K K"]) -> Float[Tensor, "K K"]:
    """Each row as shares of its class; zeros for a class without samples."""
    return counts.double() / counts.sum(dim=1, keepdim=True).clamp_min(1)


def draw_confusion(counts: Int64[Tensor, "K K"], classes: Sequence[str], title: str) -> Figure:
    """Labels down, answers across, the colour being the share of the label's samples."""
    few = len(classes) <= READABLE
    side = 2.2 + 0.38 * min(len(classes), READABLE)
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    shares = shares_of_rows(counts)
    shown = axes.imshow(shares.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    if few:
        names = [short(name) for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), names)
        for row, column in counts.nonzero().tolist():
            colour = "white" if shares[row, column] > 0.5 else "black"
            count = str(int(counts[row, column]))
            axes.text(column, row, count, ha="center", va="center", fontsize=7, color=colour)
    axes.set(xlabel="student's answer", ylabel="label", title=title)
    figure.colorbar(shown, ax=axes, label="share of the label's images")
    return figure
