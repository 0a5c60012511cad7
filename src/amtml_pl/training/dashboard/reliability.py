"""Whether a network is right as often as it claims to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from amtml_pl.results.evaluation.quality import BINS, Reliability
from amtml_pl.training.dashboard.drawing import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_reliability(found: Reliability, title: str) -> Figure:
    """Accuracy in each bin, beside the diagonal of a network that knows what it knows."""
    figure = new_figure(4.2, 4.6)
    axes, counts = figure.subplots(2, 1, height_ratios=[4, 1], sharex=True)
    left = torch.arange(BINS) / BINS
    filled = found.samples > 0
    style = {"width": 1 / BINS, "align": "edge", "edgecolor": "white"}
    axes.bar(left[filled].tolist(), found.accuracy[filled].tolist(), color="tab:blue", **style)
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"{title}\nECE {found.error:.4f}")
    counts.bar(left.tolist(), found.samples.tolist(), color="tab:grey", **style)
    counts.set(xlabel="confidence", ylabel="images")
    return figure
