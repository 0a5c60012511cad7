"""Jitter colours with exactly the results of Pillow's enhancers.

Unlike in torchvision's ``ColorJitter``, the four changes come in a fixed order: brightness, contrast,
saturation, hue. A random order would need four times the work in a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64, UInt8
from torch import Tensor

from amtml_pl.data.augment import Images, Keys
from amtml_pl.data.counter_rng import uniform
from amtml_pl.data.exact import quotient, sent
from amtml_pl.errors import UserError


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue of each image by random amounts.

    Args:
        brightness: b multiplies pixels by a factor from max(0, 1 - b) to 1 + b; 0 leaves them.
        contrast: the same for the distance to the image's mean grey.
        saturation: the same for the distance to each pixel's grey.
        hue: turns hues by up to this share of the circle either way, in [0, 0.5].
    """

    name = "color_jitter"
    distinct_views = None  # drawn anew for each view: no end
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name, amount in vars(self).items():
            most = 0.5 if name == "hue" else float("inf")
            if not 0 <= amount <= most:
                raise UserError(f"The {name} of ColorJitter is {amount} (expected 0 to {most}).")

    def __call__(self, images: Images, keys: Keys, view: int) -> Images:
        """Return each image with its four changes."""
        draws = uniform(keys, view, 4)
        if self.brightness:
            images = blend(torch.zeros_like(images), images, _factors(self.brightness, draws[:, 0]))
        if self.contrast:
            images = blend(mean_grey(images), images, _factors(self.contrast, draws[:, 1]))
        if self.saturation:
            images = blend(grey(images), images, _factors(self.saturation, draws[:, 2]))
        if self.hue:
            images = _turn_hue(images, np.trunc(self.hue * (2 * draws[:, 3] - 1) * 255).astype(np.int64))
        return images


def _factors(amount: float, draws: Float64[np.ndarray, " B"]) -> Float32[np.ndarray, "B 1 1 1"]:
    low = max(0.0, 1.0 - amount)
    return (low + (1.0 + amount - low) * draws).astype(np.float32)[:, None, None, None]


def blend(start: UInt8[Tensor, "B _ _ _"], images: Images, factors: Float32[np.ndarray, "B 1 1 1"]) -> Images:
    """Blend from ``start`` (0) through ``images`` (1) and beyond, rounded down as in Pillow."""
    difference = images.float() - start.float()
    return (start.float() + sent(factors, images.device) * difference).clamp(0, 255).to(torch.uint8)


def grey(images: Images) -> UInt8[Tensor, "B 1 H W"]:
    """Return the ITU-R 601 luma, computed in 16-bit fixed point."""
    red, green, blue = images.int().unbind(dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16).to(torch.uint8)[:, None]


def mean_grey(images: Images) -> UInt8[Tensor, "B 1 1 1"]:
    """Return the rounded mean grey, in integers as a float sum depends on its order."""
    pixels = images.shape[2] * images.shape[3]
    total = grey(images).sum(dim=(2, 3), keepdim=True)
    return ((2 * total + pixels) // (2 * pixels)).to(torch.uint8)


def _turn_hue(images: Images, steps: Int64[np.ndarray, " B"]) -> Images:
    """Add ``steps`` to the 8-bit hue modulo 256, with Pillow's mix of precisions."""
    colors = images.float()
    value, low = colors.amax(dim=1), colors.amin(dim=1)
    spread = value - low
    red, green, blue = ((value[:, None] - colors) / spread.clamp(min=1)[:, None]).double().unbind(dim=1)
    is_red, is_green = colors[:, 0] == value, colors[:, 1] == value
    turn = torch.where(is_red, blue - green, torch.where(is_green, 2 + red - blue, 4 + green - red))
    turn = quotient(turn.float().double(), 6) + 1
    hue = ((turn - turn.floor()).float().double() * 255).floor() * (spread > 0)
    saturation = ((spread / value.clamp(min=1)).double() * 255).floor()

    shift = sent(steps, images.device)[:, None, None]
    sixths = quotient((hue.long() + shift).remainder(256).double() * 6, 255)
    sector = sixths.floor()
    rest = (sixths - sector).float().double()
    value, saturation = value.double(), quotient(saturation, 255).float().double()
    low = value * (1 - saturation)
    falling, rising = value * (1 - saturation * rest), value * (1 - saturation * (1 - rest))
    # Red's levels in the six sectors of the circle; green lags behind it by two sectors, blue by four.
    levels = torch.stack([value, falling, low, low, rising, value], dim=1)
    lags = torch.arange(0, 12, 4, device=images.device)[:, None, None] % 6  # 0, 4, 2
    return (levels.gather(1, (sector.long()[:, None] + lags) % 6) + 0.5).floor().to(torch.uint8)
