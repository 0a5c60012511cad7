"""Ways to read a teacher's feature: unchanged, pooled to a grid, or as attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.models.pooling import pool
from amtml_pl.types import Shape

ATTENTION = "attention"


def attention_map(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
    """Return where a map is active, (B, 1, H, W): squared, averaged over channels, normalised.

    ``mean_c F²``, divided by its L2 norm over each sample's H·W positions.
    After Zagoruyko and Komodakis, "Paying More Attention to Attention" (arXiv:1612.03928), with exponent 2.
    """
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
    def of(name: str) -> HintSpec:
        """Parse ``layer2``, ``layer2@4`` or ``layer2@attention``.

        Raises:
            UserError: if the part behind the @ is neither a number nor ``attention``.
        """
        tap, marked, reduction = name.partition("@")
        if not marked:
            return HintSpec(tap)
        if reduction.isdecimal() and int(reduction) > 0:
            return HintSpec(tap, int(reduction))
        if reduction == ATTENTION:
            return HintSpec(tap, ATTENTION)
        raise UserError(
            f"The hint {name!r} is read as {reduction!r}; expected a grid's side, or {ATTENTION!r}.",
            fix=f"{tap}, {tap}@4 or {tap}@{ATTENTION}",
        )

    def __str__(self) -> str:
        return self.tap if self.reduction is None else f"{self.tap}@{self.reduction}"

    def __call__(self, feature: Float[Tensor, "B C H1 W1"], pool_to: int | None) -> Float[Tensor, "B C2 H W"]:
        """Return a feature map as this hint reads it.

        Args:
            feature: the map of the tap.
            pool_to: side of the grid where the reading itself names no reduction; None keeps the map.
        """
        if self.reduction == ATTENTION:
            return attention_map(feature)
        _, height, width = self.shape((feature.shape[1], feature.shape[2], feature.shape[3]), pool_to)
        return pool(feature, height, width)

    def shape(self, shape: Shape, pool_to: int | None) -> Shape:
        """Return the shape (C, H, W) that this hint has for a given map."""
        channels, height, width = shape
        if self.reduction == ATTENTION:
            return 1, height, width
        side = self.reduction if isinstance(self.reduction, int) else pool_to
        return (channels, height, width) if side is None else (channels, min(side, height), min(side, width))
