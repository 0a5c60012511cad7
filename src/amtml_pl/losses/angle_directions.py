"""Angles of a batch from the directions between its samples: B³ K multiplications."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TILE = 2**19  # angles, or coordinates of directions, at a time: 2 MB in float32, about a core's cache
WIDTH = 128  # rows of a tile; where a batch is larger, the angles of one vertex are several tiles
ADDENDS = 2**17  # one dot product of more loses the seventh digit of a float32 sum


def angles_from_directions(
    student: Float[Tensor, "B D"], target: Float[Tensor, "B E"], trained: bool
) -> tuple[Float[Tensor, ""], Float[Tensor, "B D"]]:
    """Return the summed angle loss and, if ``trained``, its gradient for the student (else zeros).

    With ``n`` the directions from a vertex, ``d`` the differences of its angles and ``c`` those clamped to
    [-1, 1], smooth L1 sums to ``c·d - c·c / 2``; its gradient for ``n`` is ``2 c n``, ``c`` being symmetric.
    It takes some tiles of ``TILE`` numbers, or of ``B · max(128, 2 D, 2 E)`` where that is more.
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

    sums: list[Tensor] = [points.new_zeros(())]
    gradient, at_ends = torch.zeros_like(points[:, 0]), torch.zeros_like(columns[0])
    for some in torch.split(torch.arange(B, device=student.device), chunk):
        unit, other = units[: len(some)], signed[: len(some)]
        torch.sub(columns, points[some, :, :, None], out=unit)
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
            gradient[some] -= pull.sum(dim=2)
    gradient += at_ends.t()
    return torch.stack(sums).sum(), 2 * gradient[:, :D]


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
