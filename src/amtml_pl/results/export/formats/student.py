"""A student as every format holds it: from images to logits, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.models.taps import TappedNetwork
from amtml_pl.results.export.formats.model_card import ModelCard

Forward: TypeAlias = Callable[[Tensor], Tensor]


class StudentLogits(nn.Module):
    """A student that gives its logits alone; its normalisation is inside.

    Args:
        student: from here on in evaluation mode, with contiguous weights.
    """

    def __init__(self, student: TappedNetwork) -> None:
        super().__init__()
        self.student = student.to(memory_format=torch.contiguous_format)
        self.eval()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Return the logits of images in [0, 1]."""
        logits: Tensor = self.student(images).logits
        return logits


@dataclass(frozen=True)
class OpenedStudent:
    """A student that has been opened.

    Attributes:
        forward: images ``(B, 3, H, W)`` in [0, 1], float32, to logits ``(B, K)``, on the CPU.
    """

    card: ModelCard
    forward: Forward


def example(image_size: int) -> Float[Tensor, "2 3 H W"]:
    """Return images to trace a graph with; two, since a batch of one is taken for a constant."""
    return torch.rand(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
