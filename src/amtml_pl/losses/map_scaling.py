"""Standardise a teacher's maps by statistics of all its cached maps."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.losses.phi_s import phi_s_matrix
from amtml_pl.models.hint_statistics import HintStatistics

Scaling: TypeAlias = Literal["per_channel", "phi_s"]
# A smaller deviation, as a share of the root mean square, may be rounding of the stored maps: float16 numbers
# next to each other differ by 2^-11 to 2^-10 of their size.
CONSTANT = torch.finfo(torch.float16).eps


def transform_of(statistics: HintStatistics, kind: Scaling) -> Float[Tensor, "C ..."]:
    """Return what centred maps are multiplied by: a scale per channel, or a matrix.

    Channels that do not vary, except by rounding to float16, become 0. PHI-S does this only if none varies.

    Args:
        statistics: of all maps of the teacher.
        kind: ``per_channel`` divides by the deviation; ``phi_s`` is `phi_s_matrix`.
    """
    variances, squares = statistics.covariance.diagonal(), statistics.mean_squares
    if kind == "phi_s":
        varies = variances.mean() > CONSTANT**2 * squares.mean()
        return phi_s_matrix(statistics.covariance) if varies else torch.zeros_like(statistics.products)
    return torch.where(variances > CONSTANT**2 * squares, variances.rsqrt(), 0.0)


class MapScaling(nn.Module):
    """Centre and transform maps; the statistics are buffers, so that a checkpoint keeps them.

    Args:
        channels: C.
        kind: as in `transform_of`.
    """

    mean: Tensor
    transform: Tensor

    def __init__(self, channels: int, kind: Scaling) -> None:
        super().__init__()
        self.kind: Scaling = kind
        shape = (channels,) if kind == "per_channel" else (channels, channels)
        # Not a number until `set_statistics`: maps that are not standardised must not train a student.
        self.register_buffer("mean", torch.full((channels,), torch.nan))
        self.register_buffer("transform", torch.full(shape, torch.nan))

    def set_statistics(self, statistics: HintStatistics) -> None:
        """Take the statistics of the teacher's maps."""
        self.mean.copy_(statistics.mean)
        self.transform.copy_(transform_of(statistics, self.kind))

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return standardised maps."""
        centred = maps - self.mean[:, None, None]
        if self.transform.ndim == 1:
            return centred * self.transform[:, None, None]
        return torch.einsum("dc,bchw->bdhw", self.transform, centred)
