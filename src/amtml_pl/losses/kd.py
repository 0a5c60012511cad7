"""Distillation towards the teachers' integrated soft targets."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.soft_targets import SoftTargetTerm, soft_target_loss
from amtml_pl.types import Step


class SoftTargetLoss(SoftTargetTerm):
    """Distillation towards the integrated soft targets, which are constants here.

    ``T² · mean_b KL(q_b || softmax(z_b / T))``, see `soft_target_loss`.
    No gradient reaches the weighting: a student could otherwise lower its loss by choosing easy
    targets (``docs/methods/amtml.md``). `amtml_pl.losses.adapter` trains the weighting.

    Args:
        temperature: T > 0.
        mixture: what the targets mix, see `integrated_soft_targets`.
    """

    vanishes_at_targets = True

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        return soft_target_loss(step.student.logits, self.soft_targets(step).detach(), self.temperature)
