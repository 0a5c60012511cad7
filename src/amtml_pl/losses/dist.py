"""Distillation of relations: correlation of rows and of columns of the outputs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from amtml_pl.losses.term import LossTerm, require_range, weighted_over_teachers
from amtml_pl.types import Step
from amtml_pl.weighting.known_classes import on_known_classes
from amtml_pl.weighting.scheme import positive_temperature

SMALLEST = 1e-8  # added to the product of the norms, as in the published code


def correlations(
    student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"], known: Bool[Tensor, "B K"], dim: int
) -> Float[Tensor, " N"]:
    """Return Pearson's correlation of two outputs along a dimension, (B,) or (K,).

    It is 0 where one of them is constant, and there its gradient is finite.

    Args:
        student: probabilities, 0 where not known, with gradients.
        teacher: probabilities, 0 where not known.
        known: which entries count.
        dim: 1 correlates the classes of a sample, 0 the samples of a class.
    """
    count = known.sum(dim=dim, keepdim=True).clamp_min(1)
    a, b = (torch.where(known, p - p.sum(dim=dim, keepdim=True) / count, 0.0) for p in (student, teacher))
    norms: Tensor = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim=dim) / (norms + SMALLEST)


def relation_losses(
    student_logits: Float[Tensor, "B K"], teacher_logits: Float[Tensor, "B K"], temperature: float
) -> tuple[Float[Tensor, " B"], Float[Tensor, ""]]:
    """Return the inter-class losses (B,) and the intra-class loss, each times T².

    After Huang et al., "Knowledge Distillation from A Stronger Teacher" (arXiv:2205.10536). Inter-class is 1
    minus the correlation of a sample's probabilities. Intra-class is 1 minus the mean over classes of the
    correlation of a class's probabilities in the batch. Both sides are renormalised among the classes that
    the teacher knows, and correlated over these.

    Args:
        student_logits: not softened, with gradients.
        teacher_logits: one teacher's, not softened.
        temperature: T > 0.
    """
    known = teacher_logits > -torch.inf
    student = F.softmax(on_known_classes(student_logits, teacher_logits) / temperature, dim=1)
    teacher = F.softmax(teacher_logits / temperature, dim=1)
    inter = 1 - correlations(student, teacher, known, dim=1)
    intra = 1 - correlations(student, teacher, known, dim=0).sum() / known.any(dim=0).sum()
    return temperature**2 * inter, temperature**2 * intra


class RelationalLogitLoss(LossTerm):
    """Weighted correlation losses of the outputs' rows and columns.

    ``sum_m (beta · mean_b w_bm inter_bm + gamma · mean_b w_bm · intra_m)``, the parts being
    `relation_losses`. The paper has one teacher; the weighted sum over several is this project's.

    Args:
        temperature: T > 0.
        beta: multiplier of the inter-class part, at least 0.
        gamma: multiplier of the intra-class part, at least 0.
    """

    needs_teachers = vanishes_where_teachers_agree = True

    def __init__(self, temperature: float, beta: float = 2.0, gamma: float = 2.0) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)
        require_range("dist.beta", beta, 0)
        require_range("dist.gamma", gamma, 0)
        self.beta, self.gamma = beta, gamma

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""

        def loss(student: Tensor, teacher: Tensor) -> Tensor:
            inter, intra = relation_losses(student, teacher, self.temperature)
            return self.beta * inter + self.gamma * intra

        return weighted_over_teachers(step, loss)
