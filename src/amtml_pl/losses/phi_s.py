"""PHI-S: one rotation and one scale per teacher give every channel variance 1."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def phi_s_matrix(covariance: Float[Tensor, "C C"]) -> Float[Tensor, "C C"]:
    """Return ``H U^T / sqrt(mean eigenvalue)``, for the covariance ``U Lambda U^T``.

    After Ranzinger et al., "PHI-S" (arXiv:2410.01680). H is a normalised Hadamard matrix where `hadamard`
    makes one. For other C it is an `equalising_rotation`. There the authors' code takes a random orthogonal
    matrix, which equalises the variances only approximately.

    Args:
        covariance: float64, not 0.
    """
    values, vectors = torch.linalg.eigh(covariance)  # in rising order; an eigenvector's sign is free
    largest = vectors.gather(0, vectors.abs().argmax(dim=0, keepdim=True))
    values, vectors = values.clamp_min(0), vectors * largest.sign()
    made = hadamard(len(values))
    rotation = equalising_rotation(values) if made is None else made.to(values) / math.sqrt(len(values))
    matrix: Tensor = rotation @ vectors.T / values.mean().sqrt()
    return matrix


def hadamard(order: int) -> Float[Tensor, "C C"] | None:
    """Return a Hadamard matrix, entries 1 and -1; None where neither construction makes one.

    Sylvester's doubling is tried first, then Paley's first construction for a prime ``order - 1``.
    """
    if order == 1:
        return torch.ones(1, 1)
    if order % 2 == 0 and (half := hadamard(order // 2)) is not None:
        return torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), half)
    q = order - 1
    if q % 4 != 3 or any(q % divisor == 0 for divisor in range(2, math.isqrt(q) + 1)):
        return None
    residues = torch.zeros(q).index_fill(0, torch.arange(1, q).square() % q, 2.0) - 1  # 1 or -1
    place = torch.arange(q)
    made = torch.ones(order, order)
    made[1:, 0] = -1
    made[1:, 1:] = residues[(place[:, None] - place) % q]
    return made.fill_diagonal_(1)


def equalising_rotation(values: Float[Tensor, " C"]) -> Float[Tensor, "C C"]:
    """Return an orthogonal Q with equal diagonal entries of ``Q diag(values) Q^T``.

    By the theorem of Schur and Horn there is one. It consists of C - 1 rotations of two axes. Each gives the
    smallest remaining entry the mean by turning it towards the largest.
    """
    C, mean = len(values), values.mean().item()
    matrix, rotation = torch.diag(values), torch.eye(C).to(values)
    remaining = [*range(C)]
    for _ in range(C - 1):
        excess = (matrix.diagonal() - mean).tolist()
        low, high = min(remaining, key=excess.__getitem__), max(remaining, key=excess.__getitem__)
        remaining.remove(low)
        tangent = tangent_to_mean(excess[low], matrix[low, high].item(), excess[high])
        cosine = 1 / math.hypot(1, tangent)
        turn = values.new_tensor([[1, tangent], [-tangent, 1]]) * cosine
        axes = [low, high]
        rotation[axes] = turn @ rotation[axes]
        matrix[axes] = turn @ matrix[axes]
        matrix[:, axes] = matrix[:, axes] @ turn.T
    return rotation


def tangent_to_mean(low: float, between: float, high: float) -> float:
    """Return the smaller t with ``low + 2 t between + t² high = 0``.

    Args:
        low: at most 0.
        between: of any sign.
        high: at least 0.
    """
    root = between + math.copysign(math.sqrt(max(between**2 - low * high, 0.0)), between)
    return -low / root if root else 0.0
