"""CA-MKD's intermediate loss: maps weighted by the teachers' own classifiers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.regression import FeatureRegression, regression_errors
from amtml_pl.types import Step, TeacherWeights
from amtml_pl.weighting.confidence import confidence_weights


class ConfidenceFeatureRegression(FeatureRegression):
    """`FeatureRegression` whose weights are the confidence of the teachers' own classifiers.

    The weights are ``(1 - softmax_m(CE(h_m(r_m(F_s)), y))_m) / (M - 1)``.
    h_m is what teacher m computes from its map on: pooling and classifier. After Zhang, Chen and Wang,
    "Confidence-Aware Multi-Teacher Knowledge Distillation" (arXiv:2201.00007), eq. 7 to 9. As opposed to
    the published code the weights are constants, and the mean is not divided by M once more
    (``docs/methods/camkd.md``); `amtml_pl.distill.published.losses` is the code.

    The teachers' classifiers are never trained, and are no submodules: in no optimiser and no checkpoint.
    The arguments are those of `FeatureRegression`.
    """

    blends_labels = False
    reads_logits = True

    def head_names(self) -> tuple[str, ...]:
        """Return all hints of the term."""
        return self.names

    def own_weights(self, step: Step) -> TeacherWeights:
        """Return the term's own weights, (B, M)."""
        return self.errors_and_weights(step)[1]

    def errors_and_weights(self, step: Step) -> tuple[Float[Tensor, "B M"], TeacherWeights]:
        """Return the errors (B, M), and each teacher's confidence as weights (B, M)."""
        regressed = self.regressed(step)
        return regression_errors(regressed, self.targets(step)), self.weigh(regressed, step)

    def weigh(self, regressed: Sequence[Float[Tensor, "B _ _ _"]], step: Step) -> TeacherWeights:
        """Return the confidence weights (B, M), as constants."""
        with torch.no_grad():
            logits = [head(made) for head, made in zip(self.heads, regressed, strict=True)]
            weights: Tensor = confidence_weights(torch.stack(logits, dim=1), step.labels)
        return weights
