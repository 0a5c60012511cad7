"""Ways to read a teacher's feature: unchanged, pooled to a grid, or as attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.models.pooling import pool
from amtml_pl.types import Shape

ATTENTION = "attention"


def attention_map(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
    """Return ``mean_c F²``, divided by its L2 norm over positions, (B, 1, H, W).

    A map of zeros gives zeros.
    After Zagoruyko and Komodakis, "Paying More Attention to Attention" (arXiv:1612.03928), with exponent 2.
    Computed in float32 or more: in float16 the square of 300 is infinite, and the smallest norm is 0.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return F.normalize(features.square().mean(dim=1, keepdim=True).flatten(1), dim=1).view(
        len(features), 1, *features.shape[2:]
    )


@dataclass(frozen=True)
class HintSpec:
    """A tap and the reduction of its map: a hint's name without the teacher.

    Attributes:
        tap: the dotted path of a module.
        reduction: None keeps the map; a number is the side of the grid that a larger map is average-pooled
            to; ``attention`` is the `attention_map`.
    """

    tap: str
    reduction: int | str | None = None

    @staticmethod
    def parse(name: str) -> HintSpec:
        """Parse ``layer2``, ``layer2@4`` or ``layer2@attention``; raise a UserError for anything else."""
        tap, marked, reduction = name.partition("@")
        if not marked:
            return HintSpec(tap)
        if reduction.isdecimal() and int(reduction) > 0:
            return HintSpec(tap, int(reduction))
        if reduction == ATTENTION:
            return HintSpec(tap, ATTENTION)
        raise UserError(
            f"The hint {name!r} has a wrong suffix (got {reduction!r}, expected a number or {ATTENTION!r}).",
            fix=f"write {tap}@4 to pool the feature map to 4x4, or {tap}@{ATTENTION} for an attention map",
        )

    def __str__(self) -> str:
        return self.tap if self.reduction is None else f"{self.tap}@{self.reduction}"

    def __call__(self, feature: Float[Tensor, "B C H1 W1"], pool_to: int | None) -> Float[Tensor, "B C2 H W"]:
        """Return the tap's map, reduced; without a reduction, pooled to a grid of side ``pool_to``."""
        if self.reduction == ATTENTION:
            return attention_map(feature)
        _, height, width = self.shape((feature.shape[1], feature.shape[2], feature.shape[3]), pool_to)
        return pool(feature, height, width)

    def shape(self, shape: Shape, pool_to: int | None) -> Shape:
        """Return the reduced map's shape (C, H, W), given the tap's."""
        channels, height, width = shape
        if self.reduction == ATTENTION:
            return 1, height, width
        side = self.reduction if isinstance(self.reduction, int) else pool_to
        return (channels, height, width) if side is None else (channels, min(side, height), min(side, width))
