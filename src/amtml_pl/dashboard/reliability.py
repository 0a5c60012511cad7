"""Whether a network is right as often as it claims to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.dashboard.drawing import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """Confidence (the highest probability) against accuracy, in bins of equal width.

    Attributes:
        samples: ``(BINS,)``, in each bin.
        confidence: ``(BINS,)``, mean in each bin, 0 in an empty one.
        accuracy: ``(BINS,)``, mean in each bin, 0 in an empty one.
    """

    samples: Int64[Tensor, " bins"]
    confidence: Float[Tensor, " bins"]
    accuracy: Float[Tensor, " bins"]

    @staticmethod
    def of(logits: Float[Tensor, "N K"], labels: Int64[Tensor, " N"]) -> Reliability:
        """Bin i holds the confidences in ``(i / BINS, (i + 1) / BINS]``."""
        confidence, named = torch.softmax(logits.double(), dim=1).max(dim=1)
        place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
        samples = torch.bincount(place, minlength=BINS)
        of_each = samples.clamp_min(1)
        sums = torch.zeros(2, BINS, dtype=torch.float64)
        sums[0].index_add_(0, place, confidence)
        sums[1].index_add_(0, place, (named == labels).double())
        return Reliability(samples, sums[0] / of_each, sums[1] / of_each)

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap between the two, over all samples."""
        share = self.samples / self.samples.sum()
        return float((share * (self.confidence - self.accuracy).abs()).sum())


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
