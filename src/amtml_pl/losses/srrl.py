"""Softmax regression: the teacher's classifier reads the student's embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.regression import Activation, FeatureRegression
from amtml_pl.losses.term import require_teachers
from amtml_pl.types import Step


def embedding_errors(made: Float[Tensor, "B C _ _"], target: Float[Tensor, "B C _ _"]) -> Float[Tensor, " B"]:
    """Return ``mean_c (mean_hw F - mean_hw F_m)²`` per sample, (B,).

    Args:
        made: the student's map in the teacher's channels, with gradients.
        target: the teacher's map.
    """
    return (made.mean(dim=(2, 3)) - target.mean(dim=(2, 3))).square().mean(dim=1)


def logit_errors(made: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """Return the mean squared difference of logits over known classes, (B,).

    Args:
        made: the teacher's classifier on the student's embedding, with gradients.
        teacher: its logits, minus infinity for a class that it does not know.
    """
    known = teacher > -torch.inf
    difference = torch.where(known, made, 0.0) - torch.where(known, teacher, 0.0)
    return difference.square().sum(dim=1) / known.sum(dim=1)


class SoftmaxRegression(FeatureRegression):
    """Weighted regression of the teachers' embeddings, and of their logits through their classifiers.

    ``sum_m mean_b w_bm (mean_c (e(r_m(F_s)) - e(F_m))² + mean_k (h_m(r_m(F_s)) - z_m)²)``.
    e is the mean over positions and r_m the regressor. h_m is what teacher m computes from its map on.
    After Yang et al., "Knowledge distillation via softmax regression representation learning" (ICLR 2021,
    https://openreview.net/forum?id=ZzwDy_wiWv), which has one teacher; the weighted sum over several is this
    project's. The paper's other losses on the logits, cross-entropy and divergence, are left out.

    The teachers' classifiers are never trained, and are no submodules: in no optimiser and no checkpoint.

    Args:
        stages: the student's stages, as dotted module paths from first to last.
        activation: as of `FeatureRegression`.
        hint: the student's last map, as a dotted module path; None takes the last of the stages.
    """

    reads_logits = True

    def __init__(
        self, stages: Sequence[str], activation: Activation = "as_teacher", hint: str | None = None
    ) -> None:
        super().__init__(stages, activation=activation, hint=hint)

    def head_names(self) -> tuple[str, ...]:
        """Return all hints of the term."""
        return self.names

    def errors(self, step: Step) -> Float[Tensor, "B M"]:
        """Return the sum of both errors for every sample and teacher, (B, M)."""
        teachers, _ = require_teachers(step)
        outputs = zip(self.heads, teachers.logits.unbind(dim=1), strict=True)
        maps = zip(self.regressed(step), self.targets(step), strict=True)
        losses = [
            embedding_errors(made, target) + logit_errors(head(made), logits)
            for (made, target), (head, logits) in zip(maps, outputs, strict=True)
        ]
        return torch.stack(losses, dim=1)
