"""Distance-wise relational loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def distance_loss(student: Float[Tensor, "B D"], target: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """RKD-D: smooth-L1 distance of all pairwise distances, each side divided by its mean positive one.

    Mean over all B² pairs, the zero diagonal included, after Park, Kim, Lu and Cho, "Relational
    Knowledge Distillation" (arXiv:1904.05068), eq. 5.

    Args:
        student: one row per sample, with gradients (through the mean distance too).
        target: one row per sample, no gradient reaches it.

    Returns:
        A scalar ≥ 0, zero where the target is a scaled and rotated copy of the student.
    """
    return F.smooth_l1_loss(normalised_distances(student), normalised_distances(target.detach()))


def normalised_distances(points: Float[Tensor, "B D"]) -> Float[Tensor, "B B"]:
    """Pairwise Euclidean distances divided by the mean of the positive ones; zeros if all coincide."""
    squared = (points[None, :, :] - points[:, None, :]).square().sum(dim=2)
    apart = squared > 1e-24
    distance = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    mean = distance.sum() / apart.sum().clamp_min(1)
    return torch.where(apart, distance / torch.where(mean > 0, mean, 1.0), 0.0)
