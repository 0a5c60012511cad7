"""The feature terms of the CA-MKD code as they run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.regression import FeatureRegression, regression_errors
from amtml_pl.losses.regression_confidence import ConfidenceFeatureRegression
from amtml_pl.types import Step
from amtml_pl.weighting.confidence import confidence_weights


class ReleasedFeatureRegression(FeatureRegression):
    """FitNet-MKD: the mean is taken of a new tensor built from the terms' values, which has no gradient."""

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """The loss of the batch: a number and nothing to train."""
        return self.errors(step).detach().mean()


class ReleasedConfidenceFeatureRegression(ConfidenceFeatureRegression):
    """CA-MKD: the weights carry gradients to regressors and student, and the mean is divided by M.

    The published loop also hands each teacher the student's map as the teacher before it has resized it;
    that is not reproduced.
    """

    def weigh(self, regressed: Sequence[Float[Tensor, "B _ _ _"]], step: Step) -> Float[Tensor, "B M"]:
        """The same weights, with their gradient."""
        logits = [head(made) for head, made in zip(self.heads, regressed, strict=True)]
        weights: Tensor = confidence_weights(torch.stack(logits, dim=1), step.labels)
        return weights

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """The loss of the batch, unweighted."""
        regressed = self.regressed(step)
        errors = regression_errors(regressed, self.targets(step))
        return (self.weigh(regressed, step) * errors).mean()
