"""The exported part of a student: a function from images to logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.models.taps import TappedNetwork
from amtml_pl.results.export.card import ModelCard

Forward: TypeAlias = Callable[[Float[Tensor, "B 3 H W"]], Tensor]  # a stranger's output may have any shape


class StudentLogits(nn.Module):
    """A student that returns only its logits; resizing and normalisation are inside.

    Args:
        student: set to evaluation mode, with contiguous weights.
    """

    def __init__(self, student: TappedNetwork) -> None:
        super().__init__()
        self.student = student.to(memory_format=torch.contiguous_format)
        self.eval()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Return the logits of images in [0, 1]."""
        logits: Float[Tensor, "B K"] = self.student(images).logits
        return logits


@dataclass(frozen=True)
class OpenedStudent:
    """An opened student.

    Attributes:
        forward: images ``(B, 3, H, W)`` in [0, 1], float32, to logits ``(B, K)``, on the CPU.
    """

    card: ModelCard
    forward: Forward
