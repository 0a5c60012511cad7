"""Adapter of the published notebook."""

from __future__ import annotations

import torch
from torch import nn

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights, TensorShapes
from amtml_pl.weighting.adaptive import latent_factor_weights
from amtml_pl.weighting.scheme import Weighting


class PublishedAdaptiveWeighting(Weighting):
    """Published adapter: an average-pooled representation with gradients to the student.

    Theta and W come from N(0, 1), seed 1. Max-pooling was intended, but the map is averaged to 1×1 before.

    Args:
        tap: the student's last feature map.
        lr: learning rate of theta and W; None takes the student's.
    """

    depends_on_order = True

    def __init__(self, tap: str, lr: float | None) -> None:
        super().__init__()
        self.tap = tap
        self.lr = lr

    def student_taps(self) -> tuple[str, ...]:
        """Return the path of the student's last feature map."""
        return (self.tap,)

    def build(self, shapes: TensorShapes) -> None:
        """Draw theta (M, D) and W (D,)."""
        D = shapes.student[self.tap][0]
        generator = torch.Generator().manual_seed(1)
        self.theta = nn.Parameter(torch.randn(len(shapes.teachers), D, generator=generator))
        self.mixing = nn.Parameter(torch.randn(D, generator=generator))

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return the teachers' weights for a batch, (B, M)."""
        return latent_factor_weights(student.features[self.tap].mean(dim=(2, 3)), self.theta, self.mixing)
