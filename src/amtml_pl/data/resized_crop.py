"""Cut a random window out of each image, and enlarge it to the image's size.

A window is never larger than its image, so that every output pixel lies between two source pixels per axis.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from torch import Tensor

from amtml_pl.data.augment import Images, Keys, require_ranges
from amtml_pl.data.counter_rng import uniform
from amtml_pl.data.exact import sent

STEPS = 256  # of a position between two pixels: a pixel times 256 times 256 is exact in float32
CHUNK_BYTES = 1 << 20  # of images that are enlarged at once, as this fits into a processor's cache
_RATIO_BITS = 24

Lengths = Int64[np.ndarray, "B 1"]


@dataclass(frozen=True)
class RandomResizedCrop:
    """Enlarge a random window of each image; mirror half of the views.

    As in torchvision's ``RandomResizedCrop``, area and aspect ratio are drawn again while the window does not
    fit, ten times at most. Then the window is the largest centre crop whose ratio is allowed. Positions are
    rounded to 1/256 of a pixel, and the bilinear pixel is rounded once. All numbers before this rounding are
    exact in float32, so that the pixels have the same bits on every machine.

    Args:
        scale: smallest and largest share of the image's area, in (0, 1].
        ratio: smallest and largest width over height, positive; its logarithm is uniform.
        flip: whether half of the views are mirrored left to right.
    """

    name = "random_resized_crop"
    distinct_views = None  # drawn anew for each view: no end
    _ATTEMPTS = 10
    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (0.75, 1.3333333333333333)
    flip: bool = True

    def __post_init__(self) -> None:
        require_ranges("RandomResizedCrop", self.scale, self.ratio)

    def __call__(self, images: Images, keys: Keys, view: int) -> Images:
        """Return each image's window for this view, as large as the image."""
        _, _, H, W = images.shape
        draws = uniform(keys, view, 3 + 2 * self._ATTEMPTS)
        height, width, fits = self.window(draws[:, 3:], H, W)
        top = np.where(fits, np.floor(draws[:, :1] * (H - height + 1)).astype(np.int64), (H - height) // 2)
        left = np.where(fits, np.floor(draws[:, 1:2] * (W - width + 1)).astype(np.int64), (W - width) // 2)
        mirrored = (draws[:, 2:3] < 0.5) & self.flip
        rows = _neighbours(top, height, H)
        columns = [np.where(mirrored, each[:, ::-1], each) for each in _neighbours(left, width, W)]
        device = images.device
        sources = [sent(each.copy(), device) for each in (*rows, *columns)]
        chunk = max(1, CHUNK_BYTES // (3 * H * W))
        crops = torch.empty_like(images)
        for part in zip(*(torch.split(each, chunk) for each in (crops, images, *sources)), strict=True):
            _enlarge_into(*part)
        return crops

    def window(
        self, draws: Float64[np.ndarray, "B _"], H: int, W: int
    ) -> tuple[Lengths, Lengths, Bool[np.ndarray, "B 1"]]:
        """Return heights and widths, and for which images an attempt fits.

        Args:
            draws: area and ratio of each attempt in turn, uniform on [0, 1).
            H: height of the images.
            W: width of the images.
        """
        area = H * W * (self.scale[0] + (self.scale[1] - self.scale[0]) * draws[:, ::2])
        ratio = log_uniform(self.ratio[0], self.ratio[1], draws[:, 1::2])
        widths, heights = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fitting = (widths > 0) & (widths <= W) & (heights > 0) & (heights <= H)
        first = fitting.argmax(axis=1)[:, None]
        fits = np.take_along_axis(fitting, first, axis=1)
        centre_height, centre_width = self.centre(H, W)
        height = np.where(fits, np.take_along_axis(heights, first, axis=1), centre_height)
        width = np.where(fits, np.take_along_axis(widths, first, axis=1), centre_width)
        return height.astype(np.int64), width.astype(np.int64), fits

    def centre(self, H: int, W: int) -> tuple[int, int]:
        """Return height and width of the largest centre crop with an allowed ratio."""
        narrowest, widest = self.ratio
        ratio = W / H
        if ratio < narrowest:
            return max(1, round(W / narrowest)), W
        if ratio > widest:
            return H, max(1, round(H * widest))
        return H, W


def log_uniform(low: float, high: float, draws: Float64[np.ndarray, "*S"]) -> Float64[np.ndarray, "*S"]:
    """Return ``low · (high / low)^draws``, by square roots.

    Unlike an exponential, a product of square roots has the same bits on every machine.
    """
    digits = (draws * 2.0**_RATIO_BITS).astype(np.int64)
    power, factor = np.full(draws.shape, float(low)), high / low
    for digit in reversed(range(_RATIO_BITS)):
        factor = math.sqrt(factor)
        power = np.where(digits >> digit & 1, power * factor, power)
    return power


def _neighbours(start: Lengths, length: Lengths, size: int) -> Iterator[Shaped[np.ndarray, "B S"]]:
    """Yield both source pixels of each output pixel, and the second's weight.

    Output pixel x lies at (x + 1/2) · length / size - 1/2 of the window, as everywhere in torchvision.
    """
    position = (2 * np.arange(size) + 1) * length - size  # in units of 1 / (2 · size)
    before, rest = position // (2 * size), position % (2 * size)
    yield start + before.clip(0, length - 1)
    yield start + (before + 1).clip(0, length - 1)
    yield ((rest * STEPS + size) // (2 * size)).astype(np.float32) / np.float32(STEPS)


def _enlarge_into(
    crops: Images,
    images: Images,
    above: Int64[Tensor, "B H"],
    below: Int64[Tensor, "B H"],
    down: Float32[Tensor, "B H"],
    before: Int64[Tensor, "B W"],
    after: Int64[Tensor, "B W"],
    right: Float32[Tensor, "B W"],
) -> None:
    """Write the weighted means of four source pixels each into ``crops``."""
    B, C, H, W = images.shape
    rows = images.reshape(B * C * H, W)
    first = torch.arange(B * C, device=images.device).view(B, C, 1) * H
    upper, lower = (
        rows.index_select(0, (first + each[:, None]).flatten()).float().view(images.shape)
        for each in (above, below)
    )
    mixed = upper.lerp_(lower, down[:, None, :, None])
    left, other = (mixed.gather(3, each[:, None, None].expand(images.shape)) for each in (before, after))
    crops.copy_(left.lerp_(other, right[:, None, None]).add_(0.5))  # which drops the fraction
