"""Replayable augmentation of whole batches: a pure function of (seed, view, sample index).

Every sample has views 1, 2, 3, …; view 0 is the image itself. A view's random numbers are computed from
(seed, operation, sample, view), so no generator has a state. The same numbers give the same pixels in any
batch, order, worker, run and machine. A teacher's outputs for a view can be computed once and kept.

Two rules keep the pixels equal to the bit for any batch size and device. Parameters are computed in
numpy on the CPU. Pixels see only integer arithmetic, or one correctly rounded floating-point operation at a
time: no batched matrix product, no floating-point sum, no transcendental function.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64, UInt8, UInt64
from torch import Tensor
from torch.nn import functional as F

from amtml_pl.data.counter_rng import random_bits, uniform
from amtml_pl.data.exact import quotient, sent
from amtml_pl.errors import UserError

Images: TypeAlias = UInt8[Tensor, "B 3 H W"]
Keys: TypeAlias = UInt64[np.ndarray, " B"]


@runtime_checkable
class Operation(Protocol):
    """One step of an augmentation, from uint8 images to uint8 images.

    Attributes:
        name: identifies the operation in a cache's fingerprint; independent of the class's name.
    """

    name: ClassVar[str]

    @property
    def distinct_views(self) -> int | None:
        """The number of views before they repeat; None if they do not."""

    def __call__(self, images: Images, keys: Keys, view: int) -> Images:
        """Return view ``view`` (from 1) of each image; ``keys`` has one random number per sample."""


@dataclass(frozen=True, eq=False)
class Augmentation:
    """A list of operations, replayed under a seed.

    Args:
        operations: applied in order; none leaves the images as they are.
        seed: another seed gives every sample other views.
    """

    operations: Sequence[Operation]
    seed: int = 0

    @property
    def distinct_views(self) -> int | None:
        """The number of views before they repeat (CropFlip: 162); None if endless."""
        counts = [operation.distinct_views for operation in self.operations]
        return None if None in counts else math.lcm(*(count for count in counts if count is not None))

    def identity(self) -> dict[str, Any]:
        """Return what determines the views, as JSON; a UserError if an operation has no name."""
        if unnamed := [type(each).__qualname__ for each in self.operations if not hasattr(each, "name")]:
            raise UserError(
                f"The augmentation operation {unnamed[0]} has no attribute 'name' (expected a text).",
                fix='add name = "blur-1" to the class; change this name when the class gives other pixels',
            )
        operations = [{"operation": operation.name, **vars(operation)} for operation in self.operations]
        try:
            json.dumps(operations)
        except TypeError as error:
            raise UserError(
                f"An augmentation operation has an attribute that JSON cannot represent ({error}).",
                fix="use only numbers, strings and lists as attributes of the operation",
            ) from error
        return {"seed": self.seed, "operations": operations}

    def __call__(self, images: Images, index: Int64[Tensor, " B"], view: int) -> Float[Tensor, "B 3 H W"]:
        """Return the given view of each image.

        Args:
            images: the stored images, on any device.
            index: each sample's row in its split.
            view: 0 for the images themselves, from 1 for augmented ones.

        Returns:
            ``(B, 3, H, W)`` float32 in [0, 1], on the device of ``images``.
        """
        if view > 0:
            for stream, operation in enumerate(self.operations):
                keys = random_bits(random_bits(self.seed, stream), index.numpy(force=True))
                images = operation(images, keys, view)
        return as_floats(images)


def as_floats(images: Images) -> Float[Tensor, "B 3 H W"]:
    """Return stored images as floats in [0, 1]."""
    return quotient(images, 255)


def require_ranges(operation: str, scale: Sequence[float], ratio: Sequence[float]) -> None:
    """Raise a UserError unless shares of an area and ratios of sides are finite ranges."""
    for name, pair, most in (("scale", scale, 1.0), ("ratio", ratio, math.inf)):
        if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most or pair[1] == math.inf:
            raise UserError(f"The {name} of {operation} is {pair} (expected [a, b], 0 < a ≤ b ≤ {most}).")


@dataclass(frozen=True)
class CropFlip:
    """The standard CIFAR augmentation: pad with zeros, crop, flip half of the views.

    There are (2·padding + 1)² crops, twice as many with flips. Each sample has all of them, in its own order,
    before any repeats.

    Args:
        padding: pixels added on each side, from 0.
        flip: whether half of the views are mirrored left to right.
    """

    name = "crop_flip"
    padding: int = 4
    flip: bool = True

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise UserError(f"The padding of CropFlip is {self.padding} (expected 0 or more).")

    @property
    def distinct_views(self) -> int:
        """The number of crops, doubled with flips."""
        return (2 * self.padding + 1) ** 2 * (2 if self.flip else 1)

    def __call__(self, images: Images, keys: Keys, view: int) -> Images:
        """Return each image's crop and flip for this view."""
        B, _, H, W = images.shape
        order = random_bits(keys[:, None], np.arange(self.distinct_views)).argsort(axis=1)
        choice = sent(order[:, (view - 1) % self.distinct_views].copy(), images.device)
        crops = choice // 2 if self.flip else choice
        top, left = crops // (2 * self.padding + 1), crops % (2 * self.padding + 1)

        padded = F.pad(images, (self.padding,) * 4)
        windows = padded.unfold(2, H, 1).unfold(3, W, 1)  # (B, 3, tops, lefts, H, W), a view of the pixels
        cropped = windows[torch.arange(B, device=images.device), :, top, left]
        if not self.flip:
            return cropped
        return torch.where((choice % 2 == 1)[:, None, None, None], cropped.flip(-1), cropped)


@dataclass(frozen=True)
class RandomErasing:
    """Erase a random rectangle inside the image.

    Source: Zhong et al., Random erasing data augmentation, AAAI 2020, algorithm 1,
    https://arxiv.org/abs/1708.04896. As in the authors' code only the size is drawn again when the
    rectangle is larger than the image, here at most ten times: after that the image stays whole.
    The constant filling is theirs for CIFAR, except for its value.

    Args:
        probability: of erasing at all, in [0, 1].
        scale: smallest and largest erased share of the area, in (0, 1].
        ratio: smallest and largest height over width, positive.
        value: the filling of all three channels, from 0 (black) to 255.
    """

    name = "random_erasing"
    distinct_views = None  # drawn anew for each view: no end
    _ATTEMPTS = 10
    probability: float = 0.5
    scale: Sequence[float] = (0.02, 0.33)
    ratio: Sequence[float] = (0.3, 3.3)
    value: int = 0

    def __post_init__(self) -> None:
        require_ranges("RandomErasing", self.scale, self.ratio)
        for name, number, most in (("probability", self.probability, 1), ("value", self.value, 255)):
            if not 0 <= number <= most:
                raise UserError(f"The {name} of RandomErasing is {number} (expected 0 to {most}).")

    def __call__(self, images: Images, keys: Keys, view: int) -> Images:
        """Return the images, some of them with a rectangle erased."""
        _, _, H, W = images.shape
        draws = uniform(keys, view, 3 + 2 * self._ATTEMPTS)
        area = H * W * (self.scale[0] + (self.scale[1] - self.scale[0]) * draws[:, 3::2])
        ratio = self.ratio[0] + (self.ratio[1] - self.ratio[0]) * draws[:, 4::2]
        heights, widths = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (heights <= H) & (widths <= W)
        first = fits.argmax(axis=1)[:, None]
        erased = (draws[:, :1] < self.probability) & np.take_along_axis(fits, first, axis=1)
        height = np.where(erased, np.take_along_axis(heights, first, axis=1), 0)
        width = np.where(erased, np.take_along_axis(widths, first, axis=1), 0)
        top = np.floor(draws[:, 1:2] * (H - height + 1))
        left = np.floor(draws[:, 2:3] * (W - width + 1))
        return _filled(images, top, left, height, width, self.value)


@dataclass(frozen=True)
class Cutout:
    """Blacken a square whose centre is any pixel; the square may leave the image.

    Source: DeVries and Taylor, Improved regularization of convolutional neural networks with cutout, 2017,
    https://arxiv.org/abs/1708.04552. One square per image.

    Args:
        size: side of the square in pixels, from 1; the paper has 16 for CIFAR-10 and 8 for CIFAR-100.
    """

    name = "cutout"
    distinct_views = None  # drawn anew for each view: no end
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"The size of Cutout is {self.size} (expected 1 pixel or more).")

    def __call__(self, images: Images, keys: Keys, view: int) -> Images:
        """Return each image with one square blackened."""
        _, _, H, W = images.shape
        draws = uniform(keys, view, 2)
        top = np.floor(draws[:, :1] * H) - self.size // 2
        left = np.floor(draws[:, 1:] * W) - self.size // 2
        side = np.full_like(top, self.size)
        return _filled(images, top, left, side, side, 0)


def _filled(
    images: Images,
    top: Float64[np.ndarray, "B 1"],
    left: Float64[np.ndarray, "B 1"],
    height: Float64[np.ndarray, "B 1"],
    width: Float64[np.ndarray, "B 1"],
    value: int,
) -> Images:
    """Return the images with one rectangle of each filled."""
    rows, columns = np.arange(images.shape[2]), np.arange(images.shape[3])
    inside_rows = (rows >= top) & (rows < top + height)
    inside_columns = (columns >= left) & (columns < left + width)
    mask = sent(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], images.device)
    return images.masked_fill(mask, value)
