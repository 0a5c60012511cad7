"""All weight on a random teacher, drawn for each batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights
from amtml_pl.weighting.scheme import Weighting


class RandomTeacherWeighting(Weighting):
    """All weight on one teacher per batch, each as likely as the others.

    Drawn from torch's generator, which every training step seeds by (seed, step).
    """

    depends_on_order = weighs_batches = True
    reads_logits = False

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return one-hot weights for a batch, (B, M): one random teacher."""
        B, M, _ = teachers.logits.shape
        drawn = torch.randint(M, (1,), device=labels.device).expand(B)
        return F.one_hot(drawn, M).to(teachers.logits)
