"""The student's answers on the images of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.types import Batch


@dataclass
class Answers:
    """Logits, batch by batch, of one pass over a split."""

    index: list[Int64[Tensor, " B"]] = field(default_factory=list)
    labels: list[Int64[Tensor, " B"]] = field(default_factory=list)
    logits: list[Float[Tensor, "B K"]] = field(default_factory=list)

    def add(self, batch: Batch, logits: Float[Tensor, "B K"]) -> None:
        """Keeps a batch's."""
        self.index.append(batch.index)
        self.labels.append(batch.labels)
        self.logits.append(logits.detach().float())

    def whole(self) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"], Float[Tensor, "N K"]]:
        """Indices, labels and logits of all, on the CPU."""
        return torch.cat(self.index).cpu(), torch.cat(self.labels).cpu(), torch.cat(self.logits).cpu()


def agreement_with_teachers(
    student: Float[Tensor, "N K"],
    labels: Int64[Tensor, " N"],
    held_out: Float[Tensor, "N M K"],
    teachers: tuple[str, ...],
) -> dict[str, float]:
    """How often each teacher names the student's class, and how often all together name the right one.

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
