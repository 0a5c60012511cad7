"""AEKD-F: weights of the teachers' maps under which their gradients oppose one another least."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.regression import Activation, FeatureRegression
from amtml_pl.types import Step, TeacherWeights
from amtml_pl.weighting.aekd import gradient_weights


class AekdFeatureRegression(FeatureRegression):
    """`FeatureRegression` with AEKD's weight per teacher and batch, from the feature's gradients.

    After Du et al., "Agree to Disagree: Adaptive Ensemble Knowledge Distillation in Gradient Space"
    (NeurIPS 2020): the weights minimise ``||sum_m a_m g_m||²`` with ``0 <= a_m <= tolerance``, where g_m is
    the gradient of teacher m's mean error, averaged over the batch and divided by its norm, and
    ``a_m / ||g_m||`` is scaled to sum to 1 (the published code's ``is_norm``). The exact gradients cost one
    backward through each regressor, none through the student.

    The other arguments are those of `FeatureRegression`.

    Args:
        tolerance: the largest weight before that scaling, in [0, 1]; at least 1 / M is always allowed.
    """

    def __init__(
        self,
        stages: Sequence[str],
        stage: int | None,
        grid: int | None,
        activation: Activation = "as_teacher",
        hint: str | None = None,
        tolerance: float = 0.6,
    ) -> None:
        super().__init__(stages, stage, grid, activation, hint)
        self.tolerance = tolerance

    def own_weights(self, step: Step) -> TeacherWeights:
        """Return the term's own weights, (B, M), as constants."""
        return self.errors_and_weights(step)[1]

    def errors_and_weights(self, step: Step) -> tuple[Float[Tensor, "B M"], TeacherWeights]:
        """Return the errors (B, M), and one weight per teacher, the same for every sample."""
        errors, feature = self.errors(step), step.student.features[self.student_stage]
        if not errors.requires_grad:
            return errors, errors.new_full(errors.shape, 1 / errors.shape[1])
        means = errors.mean(dim=0)
        pulls = [torch.autograd.grad(mean, feature, retain_graph=True)[0] for mean in means]
        g = torch.stack([pull.mean(dim=0).flatten() for pull in pulls]).double()
        shares: Tensor = gradient_weights(g, self.tolerance, normalize=True).to(errors)
        return errors, shares.expand_as(errors)
