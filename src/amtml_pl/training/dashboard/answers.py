"""Student's predictions on the images of an evaluation, and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.results.evaluation.quality import BINS, Reliability
from amtml_pl.training.dashboard.drawing import READABLE, new_figure, short
from amtml_pl.types import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class PredictionBuffer:
    """Logits, batch by batch, of one pass over a split."""

    index: list[Int64[Tensor, " B"]] = field(default_factory=list)
    labels: list[Int64[Tensor, " B"]] = field(default_factory=list)
    logits: list[Float[Tensor, "B K"]] = field(default_factory=list)

    def add(self, batch: Batch, logits: Float[Tensor, "B K"]) -> None:
        """Store a batch's indices, labels and logits."""
        self.index.append(batch.index)
        self.labels.append(batch.labels)
        self.logits.append(logits.detach().float())

    def whole(self) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"], Float[Tensor, "N K"]]:
        """Return all indices, labels and logits, on the CPU."""
        return torch.cat(self.index).cpu(), torch.cat(self.labels).cpu(), torch.cat(self.logits).cpu()

    def scalars(self, held_out: Float[Tensor, "N M K"] | None, teachers: tuple[str, ...]) -> dict[str, float]:
        """Return metrics of the validation predictions, by tag; none before the first."""
        if not self.logits:
            return {}
        index, labels, logits = self.whole()
        found = {"student/val/ece": Reliability.of(logits.double().softmax(dim=1), labels).error}
        if held_out is not None:
            found |= agreement_with_teachers(logits, labels, held_out[index], teachers)
        return found


def agreement_with_teachers(
    student: Float[Tensor, "N K"],
    labels: Int64[Tensor, " N"],
    held_out: Float[Tensor, "N M K"],
    teachers: tuple[str, ...],
) -> dict[str, float]:
    """Return how often teachers agree with the student, and the ensemble with labels.

    The ensemble is the plain mean of their probabilities: no label decides how much one of them counts.
    """
    named = student.argmax(dim=1)
    mean = torch.softmax(held_out, dim=2).mean(dim=1).argmax(dim=1)
    found = {
        "ensemble/val/acc": float((mean == labels).double().mean()),
        "ensemble/val/agreement_student": float((mean == named).double().mean()),
    }
    shared = (held_out.argmax(dim=2) == named[:, None]).double().mean(dim=0).tolist()
    for name, share in zip(teachers, shared, strict=True):
        found[f"teacher/{name}/val/agreement_student"] = share
    return found


def confusion_matrix(
    named: Int64[Tensor, " N"], labels: Int64[Tensor, " N"], classes: int
) -> Int64[Tensor, "K K"]:
    """Count samples by label (row) and predicted class (column), (K, K)."""
    return torch.bincount(labels * classes + named, minlength=classes * classes).view(classes, classes)


def shares_of_rows(counts: Int64[Tensor, "K K"]) -> Float[Tensor, "K K"]:
    """Return each row as shares of its class; zeros for a class without samples."""
    return counts.double() / counts.sum(dim=1, keepdim=True).clamp_min(1)


def draw_confusion(counts: Int64[Tensor, "K K"], classes: Sequence[str], title: str) -> Figure:
    """Draw labels down, predictions across, colour as the share of the label's samples."""
    side = 2.2 + 0.38 * min(len(classes), READABLE)
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    shares = shares_of_rows(counts)
    shown = axes.imshow(shares.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    if len(classes) <= READABLE:
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


def draw_reliability(found: Reliability, title: str) -> Figure:
    """Draw accuracy in each bin, beside the diagonal of perfect calibration."""
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
