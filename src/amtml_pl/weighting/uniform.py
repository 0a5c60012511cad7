"""Plain averaging of the teachers."""

from __future__ import annotations

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights
from amtml_pl.weighting.scheme import Weighting


class UniformWeighting(Weighting):
    """Weight ``1 / M`` for every teacher and sample: with soft targets, the AvgMKD baseline."""

    reads_logits = False

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return equal weights for a batch, (B, M)."""
        B, M, _ = teachers.logits.shape
        return teachers.logits.new_full((B, M), 1.0 / M)
