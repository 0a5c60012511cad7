"""AEKD-F: weights of the teachers' maps under which their gradients oppose one another least."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.regression import Activation, FeatureRegression, weighted_mean
from amtml_pl.types import Step
from amtml_pl.weighting.aekd import gradient_weights


class AekdFeatureRegression(FeatureRegression):
    """`FeatureRegression` with AEKD's weight per teacher and batch, from the feature's gradients.

    After Du et al., "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space"
    (NeurIPS 2020): the weights minimise ``||sum_m a_m g_m||²`` with ``0 <= a_m <= tolerance``, where g_m is
    the gradient of teacher m's mean error, averaged over the batch and divided by its norm, and
    ``a_m / ||g_m||`` is scaled to sum to 1 (the published code's ``is_norm``). The gradients are exact and
    pass through the regressors; they cost one backward through each regressor, none through the student.

    Args:
        stages: as of `FeatureRegression`.
        stage: likewise.
        grid: likewise.
        activation: likewise.
        hint: likewise.
        tolerance: the largest weight before that scaling, in [0, 1]; at least 1 / M is always allowed.
    """

    def __init__(
        self,
        stages: Sequence[str],
        stage: int | None = None,
        grid: int | None = None,
        activation: Activation = "as_teacher",
        hint: str | None = None,
        tolerance: float = 0.6,
    ) -> None:
        super().__init__(stages, stage, grid, activation, hint)
        self.tolerance = tolerance

    def own_weights(self, step: Step) -> Float[Tensor, "B M"]:
        """Return the term's own weights, (B, M), as constants."""
        return self.weigh(self.errors(step), step.student.features[self.student_stage])

    def weigh(self, errors: Float[Tensor, "B M"], feature: Float[Tensor, "B C H W"]) -> Float[Tensor, "B M"]:
        """Return one weight per teacher, repeated for every sample, (B, M)."""
        if not errors.requires_grad:
            return errors.new_full(errors.shape, 1 / errors.shape[1])
        means = errors.mean(dim=0)
        pulls = [torch.autograd.grad(mean, feature, retain_graph=True)[0] for mean in means]
        g = torch.stack([pull.mean(dim=0).flatten() for pull in pulls]).double()
        shares: Tensor = gradient_weights(g, self.tolerance, normalize=True).to(errors)
        return shares.expand_as(errors)

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        errors = self.errors(step)
        return weighted_mean(errors, self.weigh(errors, step.student.features[self.student_stage]))
