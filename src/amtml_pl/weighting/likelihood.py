"""Likelihood of the labels under each teacher, and under a mixture of the teachers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


def log_likelihoods(logits: Float[Tensor, "B M K"], labels: Int64[Tensor, " B"]) -> Float[Tensor, "B M"]:
    """Return ``log softmax(z_m)_y`` per sample and teacher, (B, M).

    Args:
        logits: of the teachers, not softened; minus infinity for a class that a teacher does not know.
        labels: in [0, K).
    """
    B, M, _ = logits.shape
    return F.log_softmax(logits, dim=2).gather(2, labels.view(B, 1, 1).expand(B, M, 1))[:, :, 0]


def mixture_likelihood_losses(
    logits: Float[Tensor, "B M K"], weights: Float[Tensor, "B M"], labels: Int64[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Return ``-log sum_m w_m softmax(z_m)_y`` per sample, (B,), with gradients for the weights.

    Computed as ``-logsumexp_m(log w_m + log p_my)``: its value and gradient stay exact where every teacher is
    sure of another class, and ``p_my`` is 0 in floating point. A sample whose label no teacher knows, or only
    teachers of weight 0, has loss and gradient 0.

    Args:
        logits: of the teachers, not softened; minus infinity for a class that a teacher does not know.
        weights: at least 0; rows sum to 1.
        labels: in [0, K).
    """
    log_likelihood = log_likelihoods(logits, labels)
    counts = (log_likelihood > -torch.inf) & (weights > 0)
    joint = weights.where(counts, 1.0).log() + log_likelihood.where(counts, 0.0)
    some = counts.any(dim=1)
    joint = joint.masked_fill(~counts & some[:, None], -torch.inf)
    return torch.where(some, -joint.logsumexp(dim=1), 0.0)
