"""Angles of a batch from the distances between its samples: B³ + B² K multiplications."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

FEWEST_COORDINATES = 48  # with less, the products of directions are cheaper on a CPU
UNEVEN = 16.0  # a larger ratio of two distances from a vertex costs the sixth digit in float32
CHUNK = 2**17  # angles at a time


def vertices_for_sides(
    student: Float[Tensor, "B D"], target: Float[Tensor, "B E"]
) -> tuple[Int64[Tensor, " v"], Int64[Tensor, " w"], list[Float[Tensor, "B B"]]]:
    """Return the vertices for directions, those for sides, and both sides' distances.

    Where no vertex is for sides because of the device or the coordinates, no distance is computed.
    """
    every = torch.arange(len(student), device=student.device)
    if student.device.type != "cpu" or min(student.shape[1], target.shape[1]) < FEWEST_COORDINATES:
        return every, every[:0], []
    uneven = torch.zeros(len(student), dtype=torch.bool)
    distances = [torch.cdist(p, p, compute_mode="donot_use_mm_for_euclid_dist") for p in (student, target)]
    for d in distances:
        nearest = d.masked_fill(torch.eye(len(d), dtype=torch.bool), torch.inf).amin(dim=1)
        uneven |= d.amax(dim=1) > UNEVEN * nearest
    return every[uneven], every[~uneven], distances


def angles_from_sides(
    student: Float[Tensor, "B D"],
    distances: Sequence[Float[Tensor, "B B"]],
    vertices: Int64[Tensor, " v"],
    trained: bool,
) -> tuple[Float[Tensor, ""], Float[Tensor, "B D"]]:
    """Return the summed angle loss at some vertices and, if ``trained``, its gradient (else zeros).

    By the law of cosines, with ``d`` the distances, ``s`` their squares and ``a`` their inverses:
    ``psi(i, j, k) = (d_ij a_ik + a_ij d_ik - a_ij a_ik s_jk) / 2``. The difference of both sides' angles is
    thus a product of rank 4 and two scaled matrices. The gradient is that for ``s``, then for the points.
    It takes two tiles of B² numbers, or of ``CHUNK`` where that is more.
    """
    B = len(student)
    d, e = distances
    (s, a), (t, b) = squares_and_inverses(d), squares_and_inverses(e)
    half_s, half_t = s / -2, t / 2
    chunk = max(1, CHUNK // B**2)
    differences, clamps = s.new_empty(2, min(chunk, len(vertices)), B, B).unbind()
    sums: list[Tensor] = []
    for_squares = torch.zeros_like(s)  # the gradient for s, in both orders of each pair
    rows = [torch.split(matrix[vertices], chunk) for matrix in (d, a, e, b)]
    for some, d_i, a_i, e_i, b_i in zip(torch.split(vertices, chunk), *rows, strict=True):
        difference, clamped = differences[: len(some)], clamps[: len(some)]
        left = torch.stack([d_i, a_i, e_i, b_i], dim=2) / 2
        torch.bmm(left, torch.stack([a_i, d_i, -b_i, -e_i], dim=1), out=difference)
        for matrix, inverse in ((half_s, a_i), (half_t, b_i)):
            torch.mul(matrix, inverse[:, :, None], out=clamped)
            difference.addcmul_(clamped, inverse[:, None, :])
        torch.clamp(difference, -1, 1, out=clamped)
        c, flat = clamped.view(-1), difference.view(-1)
        sums.append(torch.dot(c, flat) - torch.dot(c, c) / 2)
        if trained:
            of_a, of_d = torch.bmm(clamped, torch.stack([a_i, d_i], dim=2)).unbind(dim=2)
            scaled = clamped.mul_(a_i[:, :, None]).mul_(a_i[:, None, :])
            for_squares.sub_(scaled.sum(dim=0), alpha=0.5)
            of_s = torch.bmm(scaled.transpose(0, 1), s[:, :, None])[:, :, 0].t()
            along = (d_i * of_a + a_i * of_d - of_s) / 2  # the sum over k of c · psi
            for_squares[some] += a_i * of_a - a_i.square() * along
    pairs = for_squares + for_squares.t()
    pairs.fill_diagonal_(0)
    centred = student - student.mean(dim=0)  # else the common part of all points costs digits
    gradient = 2 * (pairs.sum(dim=1, keepdim=True) * centred - pairs @ centred)
    return torch.stack(sums).sum(), gradient


def squares_and_inverses(d: Float[Tensor, "B B"]) -> tuple[Float[Tensor, "B B"], Float[Tensor, "B B"]]:
    """Return the squares of distances, and their inverses: 0 for samples that coincide."""
    return d.square(), torch.where(d.square() > 1e-24, d.reciprocal(), 0.0)
