"""Another random teacher for every batch."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.types import ModelOutputs, TeacherOutputs
from amtml_pl.weighting.scheme import Weighting


class RandomTeacherWeighting(Weighting):
    """All weight on one teacher per batch, each as likely as the others.

    Drawn from torch's generator, which every training step starts from (seed, step), so that a run repeats
    and resumes to the bit.
    """

    orders_teachers = True
    weighs_batches: ClassVar[bool] = True

    def forward(
        self, student: ModelOutputs, teachers: TeacherOutputs, labels: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B M"]:
        """Return one-hot weights for a batch, (B, M): one random teacher."""
        B, M, _ = teachers.logits.shape
        drawn = torch.randint(M, (1,), device=labels.device).expand(B)
        return F.one_hot(drawn, M).to(teachers.logits)
