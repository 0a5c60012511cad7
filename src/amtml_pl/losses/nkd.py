"""Normalised distillation: cross-entropy of the label, and of the other classes' proportions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from amtml_pl.losses.term import LossTerm, require_range, weighted_over_teachers
from amtml_pl.types import Step
from amtml_pl.weighting.known_classes import on_known_classes
from amtml_pl.weighting.scheme import positive_temperature


def cross_entropies(
    student_logits: Float[Tensor, "B K"], teacher_logits: Float[Tensor, "B K"], counted: Bool[Tensor, "B K"]
) -> Float[Tensor, " B"]:
    """Return ``-sum_k p_tk ln p_sk`` over the counted classes that the teacher knows, (B,)."""
    products = F.softmax(teacher_logits, dim=1) * F.log_softmax(student_logits, dim=1)
    return -torch.where(counted & (teacher_logits > -torch.inf), products, 0.0).sum(dim=1)


def normalized_losses(
    student_logits: Float[Tensor, "B K"],
    teacher_logits: Float[Tensor, "B K"],
    labels: Int64[Tensor, " B"],
    temperature: float,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Return the target-class and the non-target-class loss per sample, (B,).

    After Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation" (arXiv:2303.13005).
    The first is ``-t_y ln s_y`` at temperature 1. The second is T² times the cross-entropy of the proportions
    of the K - 1 other classes, at temperature T. Both sides are renormalised among the classes that the
    teacher knows. A teacher that does not know the label has a target-class loss of 0.

    Args:
        student_logits: not softened, with gradients.
        teacher_logits: one teacher's, not softened.
        labels: in [0, K).
        temperature: T > 0 of the other classes.
    """
    label = F.one_hot(labels, student_logits.shape[1]).bool()
    compared = on_known_classes(student_logits, teacher_logits)
    target = cross_entropies(compared, teacher_logits, label)
    student, teacher = (z.masked_fill(label, -torch.inf) / temperature for z in (compared, teacher_logits))
    return target, temperature**2 * cross_entropies(student, teacher, ~label)


class NormalizedLoss(LossTerm):
    """Weighted normalised distillation.

    ``sum_m mean_b w_bm (target + gamma · rest)``, the parts being `normalized_losses`. They are
    cross-entropies, so that the smallest value is above 0. The paper has one teacher; the weighted sum over
    several is this project's.

    Args:
        temperature: T > 0 of the other classes; that of the label is 1.
        gamma: multiplier of the other classes' part, at least 0.
    """

    needs_teachers = True
    blends_labels = False

    def __init__(self, temperature: float, gamma: float = 1.5) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)
        require_range("nkd.gamma", gamma, 0)
        self.gamma = gamma

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""

        def loss(student: Tensor, teacher: Tensor) -> Tensor:
            target, rest = normalized_losses(student, teacher, step.labels, self.temperature)
            return target + self.gamma * rest

        return weighted_over_teachers(step, loss)
