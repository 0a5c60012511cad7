"""Distillation towards every teacher by itself, instead of towards their mixture."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.standardize import standardized_pair
from amtml_pl.losses.term import LossTerm, require_teachers
from amtml_pl.types import Step
from amtml_pl.weighting.scheme import positive_temperature

Scale: TypeAlias = Literal["paper", "ebkd_published", "camkd_published"]


def log_known_share(student: Float[Tensor, "... K"], teacher: Float[Tensor, "... K"]) -> Float[Tensor, ...]:
    """Return ``log sum_k p_sk`` over a teacher's classes; 0 for all.

    Args:
        student: log-probabilities, with gradients.
        teacher: logits or log-probabilities, minus infinity for a class that it does not know.
    """
    known = teacher > -torch.inf
    share = student.masked_fill(~known, -torch.inf).logsumexp(dim=-1)
    return torch.where(known.all(dim=-1), 0.0, share)


def known_divergence(student: Float[Tensor, "... K"], teacher: Float[Tensor, "... K"]) -> Float[Tensor, ...]:
    """Return ``KL(p_m || p_s)``, p_s renormalised among the classes that the teacher knows.

    ``sum_k p_mk (log p_mk - log p_sk) + log sum_k p_sk`` over these classes.

    Args:
        student: log-probabilities, with gradients.
        teacher: log-probabilities, minus infinity for a class that it does not know.
    """
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True)
    return torch.where(teacher > -torch.inf, divergence, 0.0).sum(dim=-1) + log_known_share(student, teacher)


def soft_target_losses(
    student_logits: Float[Tensor, "B K"],
    teacher_logits: Float[Tensor, "B M K"],
    temperature: float,
    standardize: bool = False,
) -> Float[Tensor, "B M"]:
    """Return ``T² KL(p_m || p_s)`` per sample and teacher, (B, M); p at temperature T.

    After Hinton, Vinyals and Dean (arXiv:1503.02531). Both sides are renormalised among the classes that the
    teacher knows.

    Args:
        student_logits: not softened, with gradients.
        teacher_logits: not softened.
        temperature: T > 0.
        standardize: use `standardized_pair` of each teacher's logits and the student's.
    """
    student_logits = student_logits[:, None]
    if standardize:
        everywhere = student_logits.expand_as(teacher_logits)
        student_logits, teacher_logits = standardized_pair(everywhere, teacher_logits)
    student = F.log_softmax(student_logits / temperature, dim=2).expand_as(teacher_logits)
    teachers = F.log_softmax(teacher_logits / temperature, dim=2)
    return temperature**2 * known_divergence(student, teachers)


class PerTeacherSoftTargetLoss(LossTerm):
    """Weighted mean of the distillation losses towards each teacher.

    ``mean_b sum_m w_bm T² KL(p_m || p_s)``: with uniform weights the loss-average of CA-MKD's AVER.
    The weights are constants. Its gradient is that of the distillation towards the mixture
    ``sum_m w_m p_m`` if all teachers know all classes; its value is larger where the teachers differ.

    Args:
        temperature: T > 0.
        scale: strength of the term: ``paper`` is 1; as in the published CA-MKD code, ``ebkd_published`` is
            (M - 1) / M and ``camkd_published`` is 1 / M (``docs/methods/ebkd.md``, ``camkd.md``).
        standardize: whether the logits of both sides have mean 0 and deviation 1 (``docs/methods/lskd.md``).
    """

    needs_teachers = vanishes_where_teachers_agree = True

    def __init__(self, temperature: float, scale: Scale = "paper", standardize: bool = False) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)
        self.scale: Scale = scale
        self.standardize = standardize

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        teachers, weights = require_teachers(step)
        losses = soft_target_losses(step.student.logits, teachers.logits, self.temperature, self.standardize)
        M = losses.shape[1]
        strength = {"paper": 1.0, "ebkd_published": (M - 1) / M, "camkd_published": 1 / M}[self.scale]
        return strength * (weights.detach() * losses).sum(dim=1).mean()
