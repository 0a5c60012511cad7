"""Encode logits and features for the disk, and decode them."""

from __future__ import annotations

import math
import zlib
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Num
from torch import Tensor

Storage: TypeAlias = Literal["float32", "float16", "int8"]
INT8_STEPS = 127
PIXEL_BYTES = 8
BELOW_LARGEST_FLOAT16 = np.nextafter(np.finfo(np.float16).max, np.float16(0))


def encode(values: Float[Tensor, "R ..."], storage: Storage) -> dict[str, Tensor]:
    """Return rows as they are stored: ``values (R, *S)``, and for int8 ``scale (C,)``.

    Args:
        values: finite, and in the range of float16 for ``float16``, see `unusable_rows`.
        storage: ``int8`` for feature maps only: whole numbers times one scale per channel, which is the
            channel's largest absolute value over all rows and places, divided by 127; for a channel of zeros
            it is the smallest normal number, so that the largest scale still shows the rounding of the rows.
    """
    if storage != "int8":
        return {"values": values.to(getattr(torch, storage))}
    largest = values.float().abs().amax(dim=[d for d in range(values.ndim) if d != 1])
    scale = (largest / INT8_STEPS).clamp_min(torch.finfo(torch.float32).tiny)
    steps = (values.float() / channelwise(scale, values.ndim)).round().clamp(-INT8_STEPS, INT8_STEPS)
    return {"values": steps.to(torch.int8), "scale": scale}


def encode_logits(logits: Float[Tensor, "R K"], storage: Storage) -> dict[str, Tensor]:
    """Return logits as they are stored; the largest of each row stays the largest.

    Rounding to float16 keeps the order except for ties. If a tie hides the row's largest entry, that entry is
    stored one step of float16 higher, and its rivals are first lowered from the largest number, if need be.
    """
    encoded = encode(logits, storage)
    if storage != "float16":
        return encoded
    stored = encoded["values"].numpy()
    rows, best = np.arange(len(stored)), logits.argmax(dim=1).numpy()
    tied = rows[stored.argmax(axis=1) != best]
    stored[tied] = np.minimum(stored[tied], BELOW_LARGEST_FLOAT16)
    stored[tied, best[tied]] = np.nextafter(stored[tied, best[tied]], np.float16(np.inf))
    return encoded


def probability_error(logits: Float[Tensor, "R K"], stored: Float[Tensor, "R K"]) -> float:
    """Return the mean total variation of the probabilities of stored and given logits.

    ``mean_r 1/2 sum_k |softmax(stored)_rk - softmax(z)_rk|`` at temperature 1, from 0 to 1.
    """
    given, read = (F.softmax(each.double(), dim=1) for each in (logits, stored))
    return (read - given).abs().sum(dim=1).mean().item() / 2


def decode(values: Num[Tensor, "B ..."], scale: Float[Tensor, " C"] | None) -> Float[Tensor, "B ..."]:
    """Return stored rows for computing: int8 rows, which have a scale, as float32; others unchanged."""
    return values if scale is None else values.float() * channelwise(scale, values.ndim)


def channelwise(scale: Float[Tensor, " C"], dimensions: int) -> Float[Tensor, "1 C ..."]:
    """Return a scale that broadcasts against maps with this number of dimensions."""
    return scale.reshape(1, -1, *[1] * (dimensions - 2))


def unusable_rows(values: Float[Tensor, "R ..."], storage: Storage) -> Int64[Tensor, " _"]:
    """Return the positions of rows that cannot be stored: not finite, or too large."""
    usable = torch.isfinite(values)
    if storage == "float16":
        usable &= values.abs() <= torch.finfo(torch.float16).max
    return (~usable.flatten(1).all(dim=1)).nonzero().flatten()


def stored_bytes(shape: tuple[int, ...], storage: Storage) -> int:
    """Return the bytes of one row on disk: its values and its pixels' checksum."""
    return bytes_per_row(shape, storage) + PIXEL_BYTES


def bytes_per_row(shape: tuple[int, ...], storage: Storage) -> int:
    """Return the bytes of the values of one row."""
    dtype: torch.dtype = getattr(torch, storage)
    return math.prod(shape) * dtype.itemsize


def pixel_checksums(images: Float[Tensor, "B 3 H W"]) -> Int64[Tensor, " B"]:
    """Return the CRC-32 of each image's float32 bytes, from 0 to 2³² - 1."""
    return torch.tensor([zlib.crc32(image.data) for image in images.contiguous().numpy()], dtype=torch.int64)
