"""Loss terms that train a learned weighting: the adapter's objectives and its regularisation."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.losses.soft_targets import SoftTargetTerm, soft_target_loss
from amtml_pl.losses.term import LossTerm, require_teachers
from amtml_pl.types import Step
from amtml_pl.weighting.likelihood import mixture_likelihood_losses


class JointAdapterLoss(SoftTargetTerm):
    """Published objective ``T² KL(q || p_s)`` for the adapter alone: the student is a constant.

    After the code of Liu, Zhang and Wang, Neurocomputing 415 (2020). It favours the teachers that are closest
    to the present student, hence the collapses in ``docs/negative-results.md``; `NllAdapterLoss` is the
    well-posed alternative.

    Args:
        temperature: T > 0.
        mixture: what the targets mix, see `amtml_pl.losses.soft_targets.integrated_soft_targets`.
    """

    needs_learned_weighting = is_weighting_objective = True
    trains_student = False

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        return soft_target_loss(step.student.logits.detach(), self.soft_targets(step), self.temperature)


class NllAdapterLoss(LossTerm):
    """Negative log-likelihood of the labels under the teachers' mixture, for the adapter alone.

    ``mean_b -log q_y`` of the untempered mixture ``q = sum_m w_m softmax(z_m)``.
    An extension, not in the paper: it does not depend on the student's outputs, so that it cannot reward a
    teacher for resembling the student.
    """

    needs_teachers = needs_learned_weighting = is_weighting_objective = True
    trains_student = blends_labels = False

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        teachers, weights = require_teachers(step)
        return mixture_likelihood_losses(teachers.logits, weights, step.labels).mean()


class AdapterEntropy(LossTerm):
    """Penalty ``mean_b KL(w_b || prior)`` that keeps the adapter from one-hot weights.

    An extension, not in the paper; with a uniform prior it is ``ln M - H(w_b)``. The larger its
    coefficient, the closer to the prior are the weights that minimise its sum with the joint objective,
    which alone makes them one-hot.
    """

    needs_teachers = needs_learned_weighting = True
    trains_student = False
    depends_on_order = True  # as its prior does

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's mean divergence in nats, at least 0."""
        _, w = require_teachers(step)
        smallest = torch.finfo(w.dtype).tiny  # at 0 the gradient of w log w is not a number
        log_prior = -math.log(w.shape[1]) if step.prior is None else step.prior.clamp_min(smallest).log()
        return (w * (w.clamp_min(smallest).log() - log_prior)).sum(dim=1).mean()


class AdapterL2(LossTerm):
    """Squared norm ``||W||² + ||theta||²`` of the adapter's latent factors, summed over all elements.

    After the code of Liu, Zhang and Wang, which multiplies it by 0.1.
    """

    needs_learned_weighting = True
    trains_student = False

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the squared norm, a scalar; raise a UserError if the weighting learns nothing."""
        if step.weighting_norm is None:
            raise UserError(
                "The loss term 'adapter_l2' needs a weighting with trainable parameters (got none).",
                fix="choose weighting=adaptive, or select a loss without adapter_l2, such as 'loss=[ce,kd]'",
            )
        return step.weighting_norm
