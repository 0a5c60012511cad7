"""Student's predictions on the images of an evaluation, and their confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from amtml_pl.results.evaluation.quality import calibration_error
from amtml_pl.training.dashboard.drawing import READABLE, new_figure, shorten
from amtml_pl.types import Batch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class PredictionBuffer:
    """Indices, labels and student logits of one pass over a split, by batch."""

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
        """Return metrics of the validation predictions, by tag; empty without predictions.

        The ensemble is the plain mean of the teachers' probabilities: no label and no weight changes it.

        Args:
            held_out: the teachers' logits of the whole split; None if they are not in the cache.
            teachers: their names, in the order of ``held_out``.
        """
        if not self.logits:
            return {}
        index, labels, logits = self.whole()
        found = {"student/val/ece": calibration_error(logits.double().softmax(dim=1), labels)}
        if held_out is None:
            return found
        own, predicted = held_out[index], logits.argmax(dim=1)
        mean = torch.softmax(own, dim=2).mean(dim=1).argmax(dim=1)
        found["ensemble/val/acc"] = float((mean == labels).double().mean())
        found["ensemble/val/agreement_student"] = float((mean == predicted).double().mean())
        shared = (own.argmax(dim=2) == predicted[:, None]).double().mean(dim=0).tolist()
        tags = (f"teacher/{name}/val/agreement_student" for name in teachers)
        return found | dict(zip(tags, shared, strict=True))

    def draw_confusion(self, classes: Sequence[str], title: str) -> Figure:
        """Draw labels down, predictions across, colour as the share of the label's samples."""
        _, labels, logits = self.whole()
        counts = multiclass_confusion_matrix(logits, labels, num_classes=len(classes))
        shares = counts.double() / counts.sum(dim=1, keepdim=True).clamp_min(1)
        side = 2.2 + 0.38 * min(len(classes), READABLE)
        figure = new_figure(side + 0.8, side)
        axes = figure.add_subplot()
        image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
        if len(classes) <= READABLE:
            names = [shorten(name) for name in classes]
            axes.set_xticks(range(len(classes)), names, rotation=45, ha="right")
            axes.set_yticks(range(len(classes)), names)
            for row, column in counts.nonzero().tolist():
                colour = "white" if shares[row, column] > 0.5 else "black"
                count = str(int(counts[row, column]))
                axes.text(column, row, count, ha="center", va="center", fontsize=7, color=colour)
        axes.set(xlabel="predicted class", ylabel="label", title=f"{title}: {len(labels)} images")
        figure.colorbar(image, ax=axes, label="share of the label's images")
        return figure
