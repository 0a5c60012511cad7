"""Integrated soft targets of several teachers, and the distillation loss towards them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.term import LossTerm, require_teachers
from amtml_pl.types import Mixture, Step
from amtml_pl.weighting.scheme import positive_temperature


def integrated_soft_targets(
    teacher_logits: Float[Tensor, "B M K"],
    weights: Float[Tensor, "B M"],
    temperature: float,
    mixture: Mixture = "probabilities",
) -> Float[Tensor, "B K"]:
    """Return the weighted mixture of the teachers' softened outputs, (B, K).

    ``probabilities``: ``q = sum_m w_m softmax(z_m / T)``, the paper's (its Fig. 4 prints numbers that
    only this mixture gives). ``logits``: ``q = softmax(sum_m w_m z_m / T)``, sharper where teachers agree.

    Args:
        teacher_logits: not softened.
        weights: rows sum to 1.
        temperature: T > 0.
        mixture: what is averaged, ``probabilities`` or ``logits``.
    """
    if mixture == "logits":
        return F.softmax(torch.einsum("bm,bmk->bk", weights, teacher_logits) / temperature, dim=1)
    return torch.einsum("bm,bmk->bk", weights, F.softmax(teacher_logits / temperature, dim=2))


def soft_target_loss(
    student_logits: Float[Tensor, "B K"], soft_targets: Float[Tensor, "B K"], temperature: float
) -> Float[Tensor, ""]:
    """Return the distillation loss towards soft targets, a scalar ≥ 0.

    ``T² · mean_b KL(q_b || softmax(z_b / T))``, after Hinton, Vinyals and Dean (arXiv:1503.02531).
    The factor T² keeps the size of the gradient independent of the temperature. The mean is over
    samples, the sum over classes, so that the strength does not depend on K.

    Args:
        student_logits: z, not softened, with gradients.
        soft_targets: q, rows sum to 1.
        temperature: T > 0.
    """
    log_probabilities = F.log_softmax(student_logits / temperature, dim=1)
    smallest = torch.finfo(soft_targets.dtype).tiny  # at 0 the gradient of q log q is not a number
    return temperature**2 * F.kl_div(
        log_probabilities, soft_targets.clamp_min(smallest), reduction="batchmean"
    )


def step_soft_targets(
    step: Step, temperature: float, mixture: Mixture = "probabilities"
) -> Float[Tensor, "B K"]:
    """Return a step's `integrated_soft_targets` (B, K), differentiable in its weights."""
    teachers, weights = require_teachers(step)
    return integrated_soft_targets(teachers.logits, weights, temperature, mixture)


class SoftTargetTerm(LossTerm):
    """Term that compares the student with a step's integrated soft targets; arguments as theirs."""

    needs_teachers = True

    def __init__(self, temperature: float, mixture: Mixture = "probabilities") -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)
        self.mixture: Mixture = mixture

    def soft_targets(self, step: Step) -> Float[Tensor, "B K"]:
        """Return the step's targets (B, K), differentiable in its weights."""
        return step_soft_targets(step, self.temperature, self.mixture)
