"""Shortest convex combination of a few vectors: a small quadratic program, solved exactly."""

from __future__ import annotations

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor


def minimum_norm_weights(gram: Float[Tensor, "M M"], cap: float) -> Float[Tensor, " M"]:
    """Return the weights (M,) of the shortest convex combination of M vectors.

    ``argmin 1/2 aᵀ G a`` subject to ``sum a = 1`` and ``0 <= a_m <= max(cap, 1 / M)``.
    Every weight is at 0, at the cap, or free. For each such pattern the free ones follow from a linear
    system; the best admissible solution is the minimum, since the problem is convex. 3^M small systems are
    solved at once: 243 for five teachers, 6,561 for eight. The matrix is scaled by its largest entry first.
    Of several minima the shortest a is taken: uniform weights where all vectors are alike.

    Args:
        gram: products of the vectors, symmetric, no eigenvalue below 0.
        cap: the largest weight, in [0, 1].
    """
    M = len(gram)
    if M == 1:
        return gram.new_ones(1)
    cap = max(cap, 1 / M)
    scale = gram.abs().max()
    G = gram.double() / scale.double() if scale > 0 else torch.zeros(M, M, dtype=torch.float64)
    # Even weights win among combinations whose lengths differ by less than 1e-10 of the longest vector.
    G = G + 1e-10 * torch.eye(M, dtype=torch.float64, device=G.device)
    pattern = torch.tensor(list(product((0, 1, 2), repeat=M)), device=G.device)  # at 0, at the cap, free
    at_cap = cap * (pattern == 1).to(G)
    free = (pattern == 2).to(G)
    # Rows of the system: the gradient of a free weight equals the multiplier; the others are fixed.
    system = torch.zeros(len(pattern), M + 1, M + 1, dtype=G.dtype, device=G.device)
    system[:, :M, :M] = free[:, :, None] * G + torch.diag_embed(1 - free)
    system[:, :M, M] = -free
    system[:, M, :M] = 1.0
    right = torch.cat([at_cap, at_cap.new_ones(len(at_cap), 1)], dim=1)
    none_free = free.sum(dim=1) == 0
    system[none_free, M, M] = 1.0  # nothing to solve for: admissible only if the fixed ones sum to 1
    a = torch.linalg.solve_ex(system, right)[0][:, :M]
    slack = 1e-9
    admissible = (a >= -slack).all(1) & (a <= cap + slack).all(1) & ((a.sum(1) - 1).abs() < 1e-7)
    admissible &= torch.isfinite(a).all(1)
    length = torch.einsum("pi,ij,pj->p", a, G, a)
    best = torch.where(admissible, length, torch.inf).argmin()
    weights = a[best].clamp(0.0, cap)
    shares: Tensor = weights / weights.sum()
    return shares.to(gram)
