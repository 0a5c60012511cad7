"""Distillation towards the teachers' integrated soft targets."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.soft_targets import SoftTargetTerm, soft_target_loss
from amtml_pl.losses.standardize import Standardize, standardized, standardized_soft_targets
from amtml_pl.losses.term import require_teachers
from amtml_pl.types import Mixture, Step


class SoftTargetLoss(SoftTargetTerm):
    """Distillation towards the integrated soft targets, which are constants here.

    ``T² · mean_b KL(q_b || softmax(z_b / T))``, see `soft_target_loss`.
    No gradient reaches the weighting: a student could otherwise lower its loss by choosing easy
    targets (``docs/methods/amtml.md``). `amtml_pl.losses.adapter` trains the weighting.

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
        if self.standardize == "none":
            return soft_target_loss(step.student.logits, self.soft_targets(step).detach(), self.temperature)
        teachers, weights = require_teachers(step)
        targets = standardized_soft_targets(
            teachers.logits, weights.detach(), self.temperature, self.mixture, self.standardize
        )
        return soft_target_loss(standardized(step.student.logits), targets, self.temperature)
