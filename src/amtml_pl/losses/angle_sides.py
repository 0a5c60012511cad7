"""Angles of a batch from the sides of its triangles: B³ + B² K multiplications."""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

# Inverse distances, squared distances, and what rounding has taken from those.
Sides: TypeAlias = tuple[Float[Tensor, "B B"], Float[Tensor, "B B"], Float[Tensor, "B B"]]


def angles_from_sides(
    student: Float[Tensor, "B D"], target: Float[Tensor, "B E"]
) -> tuple[Float[Tensor, ""], Float[Tensor, "B D"]]:
    """Return the summed angle loss, and its gradient for the student.

    By the law of cosines, with ``s`` the squared distances and ``a`` the inverse ones:
    ``psi(i, j, k) = (s_ij + s_ik - s_jk) a_ij a_ik / 2``. The gradient is that for ``s``, then for the
    points. Compiled, it takes a few loops over all triples and some tensors of B³ numbers. Eager, it is slow.
    """
    own, other = sides_of(student), sides_of(target)
    inverse = own[0]
    scale = inverse[:, :, None] * inverse[:, None, :]
    psi = twice_inner_products(own) * scale / 2
    difference = psi - twice_inner_products(other) * other[0][:, :, None] * other[0][:, None, :] / 2
    clamped = difference.clamp(-1, 1)
    value = (clamped * (difference - clamped / 2)).sum()

    scaled = clamped * scale
    of_squares = scaled.sum(dim=2) - inverse.square() * (clamped * psi).sum(dim=2) - scaled.sum(dim=0) / 2
    # In double precision: samples that nearly coincide have huge entries, which cancel.
    pairs = (of_squares + of_squares.t()).double()
    points = student.double()
    pairs = pairs * (1 - torch.eye(len(points), dtype=points.dtype, device=points.device))
    gradient = 2 * (pairs.sum(dim=1, keepdim=True) * points - pairs @ points)
    return value, gradient.to(student.dtype)


def twice_inner_products(sides: Sides) -> Float[Tensor, "B B B"]:
    """Return twice the inner products, ``s_ij + s_ik - s_jk``, to the last digits.

    Of two samples that nearly coincide, one side is short and the others are almost equal. The difference of
    these is taken first, which is exact, and what rounding has taken from them is added.
    """
    _, squares, rest = sides
    ij, ik, jk = squares[:, :, None], squares[:, None, :], squares[None]
    exact = (torch.maximum(ij, ik) - jk) + torch.minimum(ij, ik)
    return exact + (rest[:, :, None] + rest[:, None, :] - rest[None])


def compute_sides(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return inverse distances, squared ones and the rounding errors of those, each (B, B)."""
    exact = points.double()
    distances = torch.cdist(exact, exact, compute_mode="donot_use_mm_for_euclid_dist")
    squares = distances.square()
    inverse = torch.where(squares > 1e-24, distances.reciprocal(), 0.0)
    rounded = squares.to(points.dtype)
    return inverse.to(points.dtype), rounded, (squares - rounded).to(points.dtype)


# An operator of its own: a compiler would compute its double precision anew for every triple.
sides_of = torch.library.custom_op(
    "amtml_pl::sides",
    compute_sides,
    mutates_args=(),
    schema="(Tensor points) -> (Tensor, Tensor, Tensor)",
)


@sides_of.register_fake
def _(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    inverse, squares, rest = (points.new_empty(len(points), len(points)) for _ in range(3))
    return inverse, squares, rest
