"""Feature terms of the CA-MKD code as they run."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.losses.regression_confidence import ConfidenceFeatureRegression
from amtml_pl.types import Step
from amtml_pl.weighting.confidence import confidence_weights


class ReleasedFeatureRegression(FeatureRegression):
    """FitNet-MKD as published: the mean is a new tensor without a gradient."""

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's loss, a scalar without a gradient."""
        return self.errors(step).detach().mean()


class ReleasedConfidenceFeatureRegression(ConfidenceFeatureRegression):
    """CA-MKD as published: weights carry gradients, and the mean is divided by M.

    The gradients reach regressors and student.
    The published loop also hands each teacher the student's map as the teacher before it has resized it;
    that is not reproduced.
    """

    def weigh(self, regressed: Sequence[Float[Tensor, "B _ _ _"]], step: Step) -> Float[Tensor, "B M"]:
        """Return the confidence weights (B, M), with their gradient."""
        logits = [head(made) for head, made in zip(self.heads, regressed, strict=True)]
        weights: Tensor = confidence_weights(torch.stack(logits, dim=1), step.labels)
        return weights

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        errors, weights = self.errors_and_weights(step)
        return (weights * errors).mean()
