"""Angle-wise relational loss between the batch's student outputs and its targets."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from amtml_pl.losses.soft_targets import SoftTargetTerm
from amtml_pl.types import Step

TILE = 2**19  # angles, or coordinates of directions, at a time: 2 MB in float32, about a core's cache
WIDTH = 128  # rows of a tile; where a batch is larger, the angles of one vertex are several tiles
ADDENDS = 2**17  # one dot product of more loses the seventh digit of a float32 sum


def angle_loss(student: Float[Tensor, "B D"], target: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """Return RKD-A: the smooth-L1 distance of all angles between triples of samples.

    ``psi(i, j, k) = <n_ij, n_ik>`` with ``n_ij = (x_j - x_i) / ||x_j - x_i||``; the loss is the mean over
    all B³ triples, after Park, Kim, Lu and Cho, "Relational Knowledge Distillation" (arXiv:1904.05068),
    eq. 8. Where two samples coincide, the angle and its gradient are 0.
    The B³ angles are never all in memory: it takes some tiles of ``TILE`` numbers, or of
    ``B · max(128, 2 D, 2 E)`` where that is more. The gradient is computed in the same pass as the value
    and cannot be differentiated again.

    Args:
        student: one row per sample, with gradients.
        target: one row per sample, no gradient reaches it.

    Returns:
        A scalar ≥ 0, zero where both sides form the same angles.
    """
    dtype = torch.promote_types(student.dtype, target.dtype)
    trained = student.requires_grad and torch.is_grad_enabled()
    value: Tensor = TiledAngleLoss.apply(student.to(dtype), target.detach().to(dtype), trained)
    return value


class TiledAngleLoss(torch.autograd.Function):
    """Angle loss whose forward pass also computes the student's gradient, and saves it."""

    @staticmethod
    def forward(
        ctx: Any, student: Float[Tensor, "B D"], target: Float[Tensor, "B E"], trained: bool
    ) -> Float[Tensor, ""]:
        """Return the loss; save the gradient, zeros unless ``trained``."""
        value, gradient = value_and_gradient(student, target, trained)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Float[Tensor, ""]) -> tuple[Float[Tensor, "B D"], None, None]:
        """Return the saved gradient times the outer one: the chain rule for a scalar."""
        (gradient,) = ctx.saved_tensors
        return gradient * outer, None, None


def value_and_gradient(
    student: Float[Tensor, "B D"], target: Float[Tensor, "B E"], trained: bool
) -> tuple[Float[Tensor, ""], Float[Tensor, "B D"]]:
    """Return the angle loss and, if ``trained``, its gradient for the student (else zeros).

    With ``n`` the directions from a vertex, ``d`` the differences of its angles and ``c`` those clamped to
    [-1, 1], smooth L1 sums to ``c·d - c·c / 2``; its gradient for ``n`` is ``2 c n``, ``c`` being symmetric.
    """
    B, D = student.shape
    K = max(D, target.shape[1])
    # Zeros behind the shorter rows change no angle, and let one product make both sides' angles.
    points = torch.stack([F.pad(side, (0, K - side.shape[1])) for side in (student, target)], dim=1)
    columns = points.permute(1, 2, 0).contiguous()
    sign = points.new_tensor([1.0, -1.0]).view(2, 1, 1)
    width = min(B, WIDTH)
    chunk = min(B, max(1, TILE // (B * max(width, 2 * K))))
    # Allocated once: memory returned to the system after each chunk costs more than the arithmetic.
    units, signed = points.new_empty(2, chunk, 2, K, B).unbind()
    tiles = points.new_empty(2, chunk * width * B)

    sums: list[Tensor] = []
    gradient, at_ends = torch.zeros_like(points[:, 0]), torch.zeros_like(columns[0])
    for first in range(0, B, chunk):
        last = min(first + chunk, B)
        unit, other = units[: last - first], signed[: last - first]
        torch.sub(columns, points[first:last, :, :, None], out=unit)
        squared_length = torch.mul(unit, unit, out=other).sum(dim=2, keepdim=True)
        inverse_length = torch.where(squared_length > 1e-24, squared_length.rsqrt(), 0.0)
        unit.mul_(inverse_length)
        torch.mul(unit, sign, out=other)
        pull = torch.zeros_like(unit[:, 0]) if trained else None
        for start in range(0, B, width):
            rows = slice(start, min(start + width, B))
            sums.append(tile_of_angles(unit, other, rows, tiles, pull))
        if pull is not None:
            direction = unit[:, 0]
            along = (direction * pull).sum(dim=1, keepdim=True)
            pull.addcmul_(direction, along, value=-1).mul_(inverse_length[:, 0])
            at_ends += pull.sum(dim=0)
            gradient[first:last] -= pull.sum(dim=2)
    gradient += at_ends.t()
    return torch.stack(sums).sum() / B**3, gradient[:, :D] * (2 / B**3)


def tile_of_angles(
    unit: Float[Tensor, "n 2 K B"],
    signed: Float[Tensor, "n 2 K B"],
    rows: slice,
    tiles: Float[Tensor, "2 _"],
    pull: Float[Tensor, "n K B"] | None,
) -> Float[Tensor, ""]:
    """Return the smooth-L1 sum over a tile: n vertices, ``rows``, all samples.

    Args:
        unit: the directions from each vertex, student before target.
        signed: the same, the target's negated, so that one product gives the differences of the angles.
        rows: the samples j of this tile.
        tiles: memory for the differences, plain and clamped.
        pull: half the gradient for the student's directions, to which the tile adds its part.
    """
    n, B = len(unit), unit.shape[3]
    left = signed.flatten(1, 2)[:, :, rows].transpose(1, 2)
    difference, clamped = (tile[: n * left.shape[1] * B].view(n, -1, B) for tile in tiles)
    torch.bmm(left, unit.flatten(1, 2), out=difference)
    torch.clamp(difference, -1, 1, out=clamped)
    if pull is not None:
        pull.baddbmm_(unit[:, 0, :, rows], clamped)
    pieces = [torch.split(tile.view(-1), ADDENDS) for tile in (clamped, difference)]
    products = [torch.dot(c, d) for c, d in zip(*pieces, strict=True)]
    squares = [torch.dot(c, c) for c in pieces[0]]
    return torch.stack(products).sum() - torch.stack(squares).sum() / 2


class AngleLoss(SoftTargetTerm):
    """Angle loss between the student's softened outputs and the integrated soft targets.

    Both sides are probabilities at the same temperature, so that a perfect student has zero loss. (The
    published code compares log-probabilities or logits with probabilities.)

    Args:
        temperature: T > 0.
        mixture: what the targets mix, see `amtml_pl.losses.soft_targets.integrated_soft_targets`.
    """

    vanishes_at_targets = True

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        outputs = F.softmax(step.student.logits / self.temperature, dim=1)
        return angle_loss(outputs, self.soft_targets(step).detach())
