"""Mixup: blend each image and its label with another one of the same batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt64
from torch import Tensor

from amtml_pl.data.counter_rng import permutation, random_bits
from amtml_pl.types import Batch, Mixed


def mixup(
    images: Float[Tensor, "B 3 H W"],
    labels: Int64[Tensor, " B"],
    alpha: float,
    state: UInt64[np.ndarray, " 1"],
) -> tuple[Float[Tensor, "B 3 H W"], Mixed]:
    """Return the images blended as ``λ x_i + (1 - λ) x_j``, with j a permutation of the batch.

    λ ~ Beta(α, α) is drawn once for the batch. Source: Zhang, Cisse, Dauphin and Lopez-Paz, mixup: beyond
    empirical risk minimization, ICLR 2018, https://arxiv.org/abs/1710.09412, as in the authors' code.

    Args:
        images: a batch.
        labels: of the images.
        alpha: α > 0; the smaller, the closer λ is to 0 or 1.
        state: determines λ and the permutation.

    Returns:
        The blended images ``(B, 3, H, W)``, and their partners.
    """
    share = np.random.Generator(np.random.Philox(int(state[0]))).beta(alpha, alpha)
    partner = torch.from_numpy(permutation(len(labels), state))
    blended = share * images + (1 - share) * images[partner]
    return blended, Mixed(labels[partner], torch.tensor(share, dtype=torch.float32))


@dataclass(frozen=True)
class Mixup:
    """Mixup for one epoch; a batch is identified by its first sample."""

    alpha: float
    state: UInt64[np.ndarray, " 1"]

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with blended images and their partners."""
        own = random_bits(self.state, int(batch.index[0]))
        images, mixed = mixup(batch.images, batch.labels, self.alpha, own)
        return replace(batch, images=images, mixed=mixed)
