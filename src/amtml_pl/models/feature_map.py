"""Conversion of what a module returns to a feature map (B, C, H, W)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import NETWORK, UserError


@dataclass(frozen=True)
class MapReading:
    """How the outputs of a network's modules become maps, from its YAML.

    Attributes:
        tokens: which of a transformer's tokens (B, T, C) are read: the ``patches`` as the map of their grid,
            the ``class`` token, or the ``mean`` of the patches; the last two are maps of one pixel.
        prefix_tokens: number of tokens before the patches; None: timm's ``num_prefix_tokens``, or 0.
        map_format: ``NHWC`` if maps have their channels last; None: timm's ``output_fmt``, or ``NCHW``.
    """

    tokens: Literal["patches", "class", "mean"] = "patches"
    prefix_tokens: int | None = None
    map_format: Literal["NCHW", "NHWC"] | None = None

    @classmethod
    def of(cls, node: Mapping[str, Any]) -> MapReading:
        """Return the reading of a network's YAML, which may leave out the keys."""
        return cls(**{field.name: node[field.name] for field in fields(cls) if field.name in node})

    def of_module(self, network: nn.Module, module: nn.Module) -> MapReading:
        """Return the reading of a module; the network replaces each None."""
        prefix, form = self.prefix_tokens, self.map_format
        if prefix is None:
            prefix = getattr(network, "num_prefix_tokens", 0)
        if form is None:
            form = "NHWC" if getattr(network, "output_fmt", None) == "NHWC" else "NCHW"
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):  # torch has no others
            form = "NCHW"
        # timm's networks with registers alone have prefix tokens, but none of the class
        if self.tokens == "class" and not (prefix and getattr(network, "cls_token", prefix) is not None):
            raise UserError(
                f"{type(network).__name__} has no class token (got tokens=class, {prefix} prefix tokens).",
                fix=f"set tokens=mean in {NETWORK}, or prefix_tokens=1 if its first token is the class token",
            )
        return replace(self, prefix_tokens=prefix, map_format=form)


def as_map(tap: str, output: object, reading: MapReading) -> Float[Tensor, "B _ _ _"]:
    """Return a copy of a module's output as (B, C, H, W)."""
    if not isinstance(output, Tensor) or output.ndim not in (2, 3, 4) or not output.is_floating_point():
        raise UserError(
            f"The tapped module {tap!r} has a wrong output (got {type_and_shape(output)}, expected a float "
            "tensor of shape (B, C, H, W), (B, H, W, C), (B, T, C) or (B, C)).",
            fix="in stages and hint, name modules that return one float tensor each",
        )
    if output.ndim == 3:
        output = read_tokens(tap, output, reading)
    elif output.ndim == 4 and reading.map_format == "NHWC":
        output = output.permute(0, 3, 1, 2)
    return output.reshape(*output.shape, *[1] * (4 - output.ndim)).clone()


def read_tokens(tap: str, tokens: Float[Tensor, "B T C"], reading: MapReading) -> Float[Tensor, "B C *grid"]:
    """Return the class token, the mean patch, or the patches on their grid."""
    if reading.tokens == "class":
        return tokens[:, 0]
    prefix = reading.prefix_tokens or 0
    count = tokens.shape[1] - prefix
    if count > 0 and reading.tokens == "mean":
        return tokens[:, prefix:].mean(dim=1)
    side = math.isqrt(max(count, 0))
    if not side or side * side != count:
        raise UserError(
            f"The tokens of the tapped module {tap!r} are no square grid (got {tokens.shape[1]} tokens with "
            f"{prefix} prefix tokens, expected a square number of patches, such as 64, after the prefix).",
            fix=f"set prefix_tokens in {NETWORK} to the number of tokens before the patches, or tokens=mean",
        )
    return tokens[:, prefix:].transpose(1, 2).reshape(len(tokens), -1, side, side)


def type_and_shape(value: object) -> str:
    """Return a value's type for a message, and the shape of a tensor."""
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
