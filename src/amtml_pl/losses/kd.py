"""Distillation towards the teachers' integrated soft targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.kd_each import log_known_share
from amtml_pl.losses.soft_targets import SoftTargetTerm, soft_target_loss
from amtml_pl.losses.standardize import Standardize, standardized_soft_targets, standardized_student
from amtml_pl.losses.term import require_teachers
from amtml_pl.types import Mixture, Step


class SoftTargetLoss(SoftTargetTerm):
    """Distillation towards the integrated soft targets, which are constants here.

    ``T² · mean_b ( KL(q_b || p_b) + sum_m w_bm log sum_{k in C_m} p_bk )``, with
    ``p_b = softmax(z_b / T)`` and C_m the classes that teacher m knows; see `soft_target_loss`. A teacher
    that knows all classes adds nothing to the second part. For any other, it removes the classes outside C_m
    from the comparison: their probability 0 in q says nothing about the image. Without
    standardisation, the gradient is that of `PerTeacherSoftTargetLoss`. For one teacher, the value is, too.
    No gradient reaches the weighting: a student could otherwise lower its loss by choosing easy
    targets (``docs/methods/amtml_adapter.md``). `amtml_pl.losses.adapter` trains the weighting.

    Args:
        temperature: T > 0.
        mixture: what the targets mix, see `integrated_soft_targets`.
        standardize: whether the logits of both sides have mean 0 and deviation 1: ``none``, or each of the
            ``teachers`` before they are mixed, or their ``mixture`` (``docs/methods/lskd.md``).
    """

    vanishes_where_teachers_agree = True

    def __init__(
        self, temperature: float, mixture: Mixture = "probabilities", standardize: Standardize = "none"
    ) -> None:
        super().__init__(temperature, mixture)
        self.standardize: Standardize = standardize
        # A mixture of standardised teachers has another deviation than the student, unless they agree.
        self.vanishes_at_targets = standardize != "teachers"

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        teachers, weights = require_teachers(step)
        student, T = step.student.logits, self.temperature
        known, weights = teachers.logits, weights.detach()
        if self.standardize == "none":
            targets = self.soft_targets(step).detach()
        else:
            student = standardized_student(student, known, weights)
            targets = standardized_soft_targets(known, weights, T, self.mixture, self.standardize)
        if self.standardize == "mixture":  # one target, of the classes that any teacher knows
            known, weights = targets.log()[:, None], torch.ones_like(weights[:, :1])
        softened = F.log_softmax(student / T, dim=1)[:, None].expand_as(known)
        shares = (weights * log_known_share(softened, known)).sum(dim=1).mean()
        return soft_target_loss(student, targets, T) + T**2 * shares
