"""Distance-wise relational loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

TILE = 2**22  # coordinates of differences at a time: 16 MB in float32, all of 128 samples of 256 numbers


def distance_loss(student: Float[Tensor, "B D"], target: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """Return RKD-D: the smooth-L1 distance of all normalised pairwise distances.

    Each side is divided by its mean positive distance; the mean is over all B² pairs. After Park, Kim, Lu
    and Cho, "Relational Knowledge Distillation" (arXiv:1904.05068), eq. 5.

    Args:
        student: one row per sample, with gradients (through the mean distance too).
        target: one row per sample, no gradient reaches it.

    Returns:
        A scalar ≥ 0, zero where the target is a scaled and rotated copy of the student.
    """
    return F.smooth_l1_loss(normalised_distances(student), normalised_distances(target.detach()))


def normalised_distances(points: Float[Tensor, "B D"]) -> Float[Tensor, "B B"]:
    """Return pairwise distances divided by the mean positive one, or zeros if there is none."""
    squared = squared_distances(points)
    apart = squared > 1e-24
    distance = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    mean = distance.sum() / apart.sum().clamp_min(1)
    return torch.where(apart, distance / torch.where(mean > 0, mean, 1.0), 0.0)


def squared_distances(points: Float[Tensor, "B D"]) -> Float[Tensor, "B B"]:
    """Return squared pairwise distances (B, B), computed in blocks of rows.

    At most ``max(TILE, B · D)`` squared differences are in memory at a time; the backward pass computes
    them anew. ``|x|² + |y|² - 2 <x, y>`` would round samples that coincide apart, and so change the mean of
    the positive distances.
    """
    rows = max(1, TILE // max(1, points.numel()))
    if rows >= len(points):
        return squares_between(points, points)
    return torch.cat(
        [
            checkpoint(squares_between, block, points, use_reentrant=False, preserve_rng_state=False)
            for block in torch.split(points, rows)
        ]
    )


def squares_between(block: Float[Tensor, "n D"], points: Float[Tensor, "B D"]) -> Float[Tensor, "n B"]:
    """Return the squared distance of each of n points from every point, (n, B)."""
    return (points[None, :, :] - block[:, None, :]).square().sum(dim=2)
