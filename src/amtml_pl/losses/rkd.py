"""Relational distillation: distances and angles between samples follow the teachers' embeddings."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.angle import angle_loss
from amtml_pl.losses.distance import distance_loss
from amtml_pl.losses.embeddings import EmbeddingTerm
from amtml_pl.losses.term import require_teachers
from amtml_pl.types import Step


class RelationLoss(EmbeddingTerm):
    """Weighted distance and angle losses between pooled last maps.

    ``sum_m mean_b(w_bm) (distance · RKD-D + angle · RKD-A)``, the parts being `distance_loss` and
    `angle_loss`. After Park et al., "Relational Knowledge Distillation" (arXiv:1904.05068), which has one
    teacher.

    Args:
        tap: the student's last map, as a dotted module path.
        distance: multiplier of the distances' part, at least 0.
        angle: multiplier of the angles' part, at least 0.
    """

    def __init__(self, tap: str, distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__(tap)
        self.distance, self.angle = distance, angle

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        student, teachers = self.embeddings(step)
        _, weights = require_teachers(step)
        total = student.new_zeros(())
        for share, teacher in zip(weights.detach().mean(dim=0), teachers, strict=True):
            if share == 0:
                continue
            distance, angle = distance_loss(student, teacher), angle_loss(student, teacher)
            total = total + share * (self.distance * distance + self.angle * angle)
        return total
