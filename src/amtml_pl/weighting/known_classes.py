"""Classes that a teacher does not know: their logits are minus infinity."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from amtml_pl.types import Labels, TeacherWeights


def knows_label(logits: Float[Tensor, "B M K"], labels: Labels) -> Bool[Tensor, "B M"]:
    """Return which teachers know the label of each sample, (B, M)."""
    B, M, _ = logits.shape
    return logits.gather(2, labels.view(B, 1, 1).expand(B, M, 1))[:, :, 0] > -torch.inf


def on_known_classes(
    logits: Float[Tensor, "... K"], teacher_logits: Float[Tensor, "... K"]
) -> Float[Tensor, "... K"]:
    """Return logits that are minus infinity where a teacher's are, so that a softmax renormalises."""
    return logits.masked_fill(teacher_logits == -torch.inf, -torch.inf)


def among_those_who_know(weights: Float[Tensor, "B M"], knows: Bool[Tensor, "B M"]) -> TeacherWeights:
    """Return weights (B, M) of the teachers that know the label; rows sum to 1.

    ``w_m [m knows y] / sum_j w_j [j knows y]``. A row stays unchanged where all or none of the teachers know
    the label; it is uniform among those who know where their weights are all 0.

    Args:
        weights: rows sum to 1.
        knows: which teachers know the label, as `knows_label` returns it.
    """
    count = knows.sum(dim=1, keepdim=True)
    left = weights * knows
    total = left.sum(dim=1, keepdim=True)
    shares = torch.where(total > 0, left / total.where(total > 0, 1.0), knows / count.clamp_min(1))
    return torch.where((count == 0) | (count == weights.shape[1]), weights, shares)
