"""Plain averaging of the teachers."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.types import ModelOutputs, TeacherOutputs
from amtml_pl.weighting.scheme import Weighting


class UniformWeighting(Weighting):
    """Weight ``1 / M`` for every teacher and sample: with soft targets, the AvgMKD baseline."""

    def forward(
        self, student: ModelOutputs, teachers: TeacherOutputs, labels: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B M"]:
        """Return equal weights for a batch, (B, M)."""
        B, M, _ = teachers.logits.shape
        return teachers.logits.new_full((B, M), 1.0 / M)
