"""Resize images with the same bits in every batch, memory layout and on every device."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def resize(images: Float[Tensor, "B 3 H W"], size: int) -> Float[Tensor, "B 3 S S"]:
    """Return images of size × size pixels: bilinear, antialiased along an axis that shrinks.

    The values are those of ``torch.nn.functional.interpolate(mode="bilinear", antialias=True)``. Its kernels,
    and those of matrix products, depend on layout and batch size. This is one gather, product and sum per
    weight of a pixel, so no sum has an order to choose, and any ONNX runtime has the operators.
    """
    rows_first = size < images.shape[2]  # the order with the fewest gathers of single pixels
    for axis in (2, 3) if rows_first else (3, 2):
        if images.shape[axis] != size:
            images = resize_axis(images, axis, size)
    return images


def resize_axis(images: Float[Tensor, "B 3 _ _"], axis: int, size: int) -> Float[Tensor, "B 3 _ _"]:
    """Return images with ``size`` pixels along one axis."""
    length = images.shape[axis]
    pixels, weights = triangle(length, size, images.device)
    weights = weights.to(images.dtype).view(len(weights), *(size if each == axis else 1 for each in range(4)))
    total = images.index_select(axis, pixels[0]).mul_(weights[0])
    for pixel, weight in zip(pixels[1:], weights[1:], strict=True):
        total += images.index_select(axis, pixel).mul_(weight)
    return total


def triangle(
    length: int, size: int, device: torch.device
) -> tuple[Int64[Tensor, "P S"], Float[Tensor, "P S"]]:
    """Return the pixels that each new pixel averages, and their weights; these sum to 1.

    A weight falls linearly with the distance of two pixels' centres: to 0 at the distance of neighbours in
    the coarser of both grids. Distances are whole multiples of 1 / (2 · length · size), so that they are
    exact.
    """
    coarse = 2 * max(length, size)
    centre = (2 * torch.arange(size, device=device) + 1) * length
    first = (centre - coarse - size).div(2 * size, rounding_mode="floor") + 1
    pixels = first + torch.arange(-(-coarse // size), device=device)[:, None]
    whole = (coarse - (centre - (2 * pixels + 1) * size).abs()).clamp(min=0)
    whole = whole * (pixels >= 0) * (pixels < length)
    return pixels.clamp(0, length - 1), whole / whole.sum(dim=0)
