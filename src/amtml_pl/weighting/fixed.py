"""Teacher weights that the user gives."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights, TensorShapes
from amtml_pl.weighting.scheme import Weighting


class FixedWeighting(Weighting):
    """Given weights, the same for every sample.

    Args:
        weights: of each teacher by name, at least 0; divided by their sum. With None, `build` raises an
            error that shows what to type.
    """

    depends_on_order = True
    reads_logits = False
    shares: Tensor

    def __init__(self, weights: Mapping[str, float] | None) -> None:
        super().__init__()
        self.weights = {name: float(weight) for name, weight in (weights or {}).items()}

    def build(self, shapes: TensorShapes) -> None:
        """Order the weights as the teachers; raise a UserError for missing or unusable ones."""
        names = shapes.teachers
        fix = f"'weighting.weights={{{','.join(f'{name}:1' for name in names)}}}'"
        if set(self.weights) != set(names):
            raise UserError(
                f"weighting.weights needs a weight per teacher (got {[*self.weights]}, expected {[*names]}).",
                fix=fix,
            )
        if min(self.weights.values()) < 0 or not 0 < sum(self.weights.values()) < float("inf"):
            raise UserError(
                f"weighting.weights has wrong values (got {self.weights}, expected 0 or more, not all 0).",
                fix=fix,
            )
        given = torch.tensor([self.weights[name] for name in names])
        self.register_buffer("shares", given / given.sum(), persistent=False)

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return the given weights for a batch, (B, M)."""
        return self.shares.to(teachers.logits).expand(len(labels), -1)
