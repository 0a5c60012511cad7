"""CA-MKD's intermediate loss: maps weighted by the teachers' own classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.losses.regression import FeatureRegression, regression_errors, weighted_mean
from amtml_pl.types import Step
from amtml_pl.weighting.confidence import confidence_weights


class ConfidenceFeatureRegression(FeatureRegression):
    """`FeatureRegression` whose weights are the confidence of the teachers' own classifiers.

    The weights are ``(1 - softmax_m(CE(h_m(r_m(F_s)), y))_m) / (M - 1)``.
    h_m is what teacher m computes from its map on: pooling and classifier. After Zhang, Chen and Wang,
    "Confidence-Aware Multi-Teacher Knowledge Distillation" (arXiv:2201.00007), eq. 7 to 9. As opposed to
    the published code the weights are constants, and the mean is not divided by M once more
    (``docs/mathematics.md``, "camkd"); `amtml_pl.distill.released.losses` is the code.

    The classifiers are the teachers' and are never trained. They are loaded once, without the rest of
    their networks, and are no submodules: in no optimiser and no checkpoint.
    """

    blends_labels = False
    heads: tuple[nn.Module, ...] = ()  # in a tuple, which torch does not look into

    def head_names(self) -> tuple[str, ...]:
        """Return all hints of the term."""
        return self.names

    def take_heads(self, heads: Mapping[str, nn.Module]) -> None:
        """Keep the classifiers that belong to the term's hints."""
        self.heads = tuple(heads[name] for name in self.names)

    def own_weights(self, step: Step) -> Float[Tensor, "B M"]:
        """Return the term's own weights, (B, M), as constants."""
        return self.weigh(self.regressed(step), step)

    def weigh(self, regressed: Sequence[Float[Tensor, "B _ _ _"]], step: Step) -> Float[Tensor, "B M"]:
        """Return weights (B, M) by how well each classifier understands the student's map.

        Raises:
            RuntimeError: if the term has not received the classifiers.
        """
        if len(self.heads) != len(self.names):
            raise RuntimeError("The teachers' classifiers have not been given to the term.")
        with torch.no_grad():
            logits = [head(made) for head, made in zip(self.heads, regressed, strict=True)]
            weights: Tensor = confidence_weights(torch.stack(logits, dim=1), step.labels)
        return weights

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        regressed = self.regressed(step)
        errors = regression_errors(regressed, self.targets(step))
        return weighted_mean(errors, self.weigh(regressed, step))
