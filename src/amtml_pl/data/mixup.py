"""Mixup: blend each image and its label with another one of the same batch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt64

from amtml_pl.data.counter_rng import permutation, random_bits
from amtml_pl.types import Batch, Mixed


@dataclass(frozen=True)
class Mixup:
    """Blend each image of a batch with another one, its partner.

    The result is ``λ x_i + (1 - λ) x_j``, with j a permutation of the batch; λ ~ Beta(α, α) is drawn once
    for the batch. Source: Zhang, Cisse, Dauphin and Lopez-Paz, mixup: beyond
    empirical risk minimization, ICLR 2018, https://arxiv.org/abs/1710.09412, as in the authors' code.

    Args:
        alpha: α > 0; the smaller, the closer λ is to 0 or 1.
        state: of an epoch; with the first sample of a batch it determines λ and the permutation.
    """

    alpha: float
    state: UInt64[np.ndarray, " 1"]

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with blended images and their partners."""
        state = random_bits(self.state, int(batch.index[0]))
        share = np.random.Generator(np.random.Philox(int(state[0]))).beta(self.alpha, self.alpha)
        partner = torch.from_numpy(permutation(len(batch), state))
        others = batch.images[partner.to(batch.images.device, non_blocking=True)]
        images = share * batch.images + (1 - share) * others
        mixed = Mixed(batch.labels[partner], torch.tensor(share, dtype=torch.float32))
        return replace(batch, images=images, mixed=mixed)
