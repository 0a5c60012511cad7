"""Sums over all positions of a hint, from which its mean and covariance follow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class HintStatistics:
    """Sums over images and positions in float64; those of several views are added.

    Attributes:
        count: number of positions of all images.
        total: ``(C,)``, ``sum_n x_n``.
        products: ``(C, C)``, ``sum_n x_n x_n^T``.
    """

    count: int
    total: Float[Tensor, " C"]
    products: Float[Tensor, "C C"]

    @classmethod
    def of(cls, maps: Float[Tensor, "B C H W"]) -> HintStatistics:
        """Return the sums over some maps; memory for one copy of them in float64."""
        positions = maps.movedim(1, -1)
        rows = positions.to(torch.float64, memory_format=torch.contiguous_format).flatten(0, -2)
        return cls(len(rows), rows.sum(dim=0), rows.T @ rows)

    def __add__(self, other: HintStatistics) -> HintStatistics:
        return HintStatistics(
            self.count + other.count, self.total + other.total, self.products + other.products
        )

    @property
    def mean(self) -> Float[Tensor, " C"]:
        """The mean of every channel."""
        return self.total / self.count

    @property
    def mean_squares(self) -> Float[Tensor, " C"]:
        """The mean square of every channel, not centred."""
        return self.products.diagonal() / self.count

    @property
    def covariance(self) -> Float[Tensor, "C C"]:
        """The covariance, divided by the count (not by the count less 1)."""
        return self.products / self.count - self.mean.outer(self.mean)
