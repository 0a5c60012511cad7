"""Change each image by one random operation, with exactly the results of Pillow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from amtml_pl.data.augment import Images, Keys
from amtml_pl.data.color_jitter import blend, grey, mean_grey
from amtml_pl.data.counter_rng import uniform
from amtml_pl.data.exact import sent

LEVELS = 31  # strengths of an operation, from none to the greatest

Levels: TypeAlias = Int64[np.ndarray, " B"]
Signs: TypeAlias = Int64[np.ndarray, " B"]  # -1 or 1
Numbers: TypeAlias = Float64[np.ndarray, " B"]
Change: TypeAlias = Callable[[Images, Levels, Signs], Images]


@dataclass(frozen=True)
class TrivialAugmentWide:
    """Change each image by one of 14 operations, drawn anew for each view.

    Source: Müller and Hutter, TrivialAugment, ICCV 2021, https://arxiv.org/abs/2103.10158. Operations and
    strengths are those of torchvision's ``TrivialAugmentWide`` with its default arguments: nearest pixels,
    and black where an image is moved away.
    """

    name = "trivial_augment_wide"
    distinct_views = None  # drawn anew for each view: no end

    def __call__(self, images: Images, keys: Keys, view: int) -> Images:
        """Return each image, changed by its operation for this view."""
        draws = uniform(keys, view, 3)
        chosen, levels = (draws[:, :2] * (len(CHANGES), LEVELS)).astype(np.int64).T
        signs = np.where(draws[:, 2] < 0.5, -1, 1)
        changed = images.clone()
        for number, change in enumerate(CHANGES.values()):
            rows = np.flatnonzero(chosen == number)
            if len(rows):
                at = sent(rows, images.device)
                changed[at] = change(images[at], levels[rows], signs[rows])
        return changed


def strengths(levels: Levels, signs: Signs, greatest: float) -> Numbers:
    """Return strengths in equal steps from 0 to the greatest, with their signs."""
    return signs * (greatest * levels / (LEVELS - 1))


def identity(images: Images, levels: Levels, signs: Signs) -> Images:
    """Return the images."""
    return images


def shear_x(images: Images, levels: Levels, signs: Signs) -> Images:
    """Shift each row in proportion to its height."""
    return moved(images, (1, strengths(levels, signs, 0.99), 0, 0, 1, 0))


def shear_y(images: Images, levels: Levels, signs: Signs) -> Images:
    """Shift each column in proportion to its place."""
    return moved(images, (1, 0, 0, strengths(levels, signs, 0.99), 1, 0))


def translate_x(images: Images, levels: Levels, signs: Signs) -> Images:
    """Shift images to the side, by whole pixels."""
    return moved(images, (1, 0, -np.trunc(strengths(levels, signs, 32.0)), 0, 1, 0))


def translate_y(images: Images, levels: Levels, signs: Signs) -> Images:
    """Shift images up or down, by whole pixels."""
    return moved(images, (1, 0, 0, 0, 1, -np.trunc(strengths(levels, signs, 32.0))))


def rotate(images: Images, levels: Levels, signs: Signs) -> Images:
    """Turn images about their centre."""
    x, y = images.shape[3] / 2, images.shape[2] / 2
    angles = [-math.radians(degrees) for degrees in strengths(levels, signs, 135.0)]
    # The rounding, which is Pillow's, and that of `moved` hide the last digits, in which machines differ.
    cosine = np.array([round(math.cos(angle), 15) for angle in angles])
    sine = np.array([round(math.sin(angle), 15) for angle in angles])
    return moved(
        images, (cosine, sine, cosine * -x + sine * -y + x, -sine, cosine, -sine * -x + cosine * -y + y)
    )


def brightness(images: Images, levels: Levels, signs: Signs) -> Images:
    """Blend images with black."""
    return blend(torch.zeros_like(images), images, factors(levels, signs))


def color(images: Images, levels: Levels, signs: Signs) -> Images:
    """Blend images with their grey."""
    return blend(grey(images), images, factors(levels, signs))


def contrast(images: Images, levels: Levels, signs: Signs) -> Images:
    """Blend images with their mean grey."""
    return blend(mean_grey(images), images, factors(levels, signs))


def sharpness(images: Images, levels: Levels, signs: Signs) -> Images:
    """Blend images with their smoothed pixels; those at the border stay."""
    H, W = images.shape[2:]
    wide = images.int()
    total = 4 * wide[:, :, 1:-1, 1:-1]
    for top in range(3):
        for left in range(3):
            total = total + wide[:, :, top : H - 2 + top, left : W - 2 + left]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = ((2 * total + 13) // 26).to(torch.uint8)
    return blend(smooth, images, factors(levels, signs))


def posterize(images: Images, levels: Levels, signs: Signs) -> Images:
    """Set the low bits of each pixel to 0, six at most."""
    dropped = (2 * levels + 5) // 10
    return images & per_image((256 - 2**dropped).astype(np.uint8), images.device)


def solarize(images: Images, levels: Levels, signs: Signs) -> Images:
    """Invert the pixels from a threshold on."""
    threshold = per_image((255 - 17 * levels // 2).astype(np.uint8), images.device)
    return torch.where(images >= threshold, 255 - images, images)


def auto_contrast(images: Images, levels: Levels, signs: Signs) -> Images:
    """Spread the values of each channel from 0 to 255."""
    low, high = (edge.flatten(2).double() for edge in (images.amin((2, 3), True), images.amax((2, 3), True)))
    most = torch.full((), 255.0, dtype=torch.float64, device=images.device)
    scale = most / (high - low).clamp(min=1)  # a tensor by a tensor, as in `quotient`
    values = torch.arange(256, device=images.device)
    spread = (values * scale + -low * scale).long().clamp(0, 255)
    return looked_up(images, torch.where(high > low, spread, values))


def equalize(images: Images, levels: Levels, signs: Signs) -> Images:
    """Make the histogram of each channel uniform."""
    B, C, H, W = images.shape
    values = torch.arange(256, device=images.device)
    first = torch.arange(0, 256 * B * C, 256, device=images.device).view(B, C, 1, 1)
    counts = torch.bincount((images + first).flatten(), minlength=256 * B * C).view(B, C, 256)
    of_highest = counts.gather(2, images.amax((2, 3), True).flatten(2).long())
    step = (H * W - of_highest) // 255
    before = counts.cumsum(2) - counts
    table = ((step // 2 + before) // step.clamp(min=1)).clamp(max=255)
    return looked_up(images, torch.where(step > 0, table, values))


CHANGES: dict[str, Change] = {
    "Identity": identity,
    "ShearX": shear_x,
    "ShearY": shear_y,
    "TranslateX": translate_x,
    "TranslateY": translate_y,
    "Rotate": rotate,
    "Brightness": brightness,
    "Color": color,
    "Contrast": contrast,
    "Sharpness": sharpness,
    "Posterize": posterize,
    "Solarize": solarize,
    "AutoContrast": auto_contrast,
    "Equalize": equalize,
}


def moved(images: Images, matrix: tuple[Numbers | float, ...]) -> Images:
    """Return moved images, black where a source lies outside.

    The source of ``(x, y)`` is the pixel at ``(a x + b y + c, d x + e y + f)``.
    As in Pillow, positions have 16 binary places.
    """
    H, W = images.shape[2:]
    a, b, c, d, e, f = matrix
    numbers = np.broadcast_arrays(
        *map(np.atleast_1d, (a, b, c + 0.5 * a + 0.5 * b, d, e, f + 0.5 * d + 0.5 * e))
    )
    fixed = np.floor(np.stack(numbers) * 65536 + 0.5).astype(np.int64)[:, :, None, None]
    a, b, c, d, e, f = sent(fixed, images.device)
    x = torch.arange(W, device=images.device)
    y = torch.arange(H, device=images.device)[:, None]
    column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
    source = (row.clamp(0, H - 1) * W + column.clamp(0, W - 1)).expand(len(images), H, W).flatten(1)
    found = images.flatten(2).gather(2, source[:, None].expand(-1, images.shape[1], -1))
    return found.view(images.shape).mul_(inside[:, None])


def looked_up(images: Images, table: Int64[Tensor, "B C 256"]) -> Images:
    """Return each pixel's entry in the table of its image and channel."""
    return table.to(torch.uint8).gather(2, images.flatten(2).long()).view(images.shape)


def factors(levels: Levels, signs: Signs) -> np.ndarray:
    """Return the factors of `blend`, from 0.01 to 1.99."""
    return (1.0 + strengths(levels, signs, 0.99)).astype(np.float32)[:, None, None, None]


def per_image(numbers: UInt8[np.ndarray, " B"], device: torch.device) -> UInt8[Tensor, "B 1 1 1"]:
    """Return one number per image, to compute with pixels."""
    return sent(numbers, device)[:, None, None, None]
