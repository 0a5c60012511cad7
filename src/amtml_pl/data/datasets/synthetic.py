"""Random images of a data set's shape: for measuring speed, never for measuring accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from amtml_pl.data.source import DatasetSource
from amtml_pl.errors import UserError
from amtml_pl.types import Split, SplitName


class Synthetic(DatasetSource):
    """Uniformly random pixels; the labels repeat 0 … K - 1.

    Args:
        num_classes: K, from 2.
        image_size: height and width in pixels, from 1.
        train_images: size of the training split, at least K.
        test_images: size of the test split, at least 1.

    Raises:
        UserError: an argument is out of range.
    """

    splits: tuple[SplitName, ...] = ("train", "test")

    def __init__(
        self, num_classes: int = 10, image_size: int = 32, train_images: int = 2048, test_images: int = 256
    ) -> None:
        if num_classes < 2 or image_size < 1 or train_images < num_classes or test_images < 1:
            raise UserError(
                f"An argument of Synthetic is too small (got {num_classes=}, {image_size=}, {train_images=}, "
                f"{test_images=}, expected num_classes ≥ 2, image_size ≥ 1, train_images ≥ num_classes, "
                "test_images ≥ 1)."
            )
        self.num_classes = num_classes
        self.image_size = image_size
        self.images: dict[str, int] = {"train": train_images, "test": test_images}

    def identity(self) -> dict[str, Any]:
        """Return what determines the pixels, as JSON."""
        sizes = {"classes": self.num_classes, "size": self.image_size, "images": self.images}
        return {"source": "Synthetic", **sizes}

    def signature(self) -> str | None:
        """Return a cheap identity of the local raw data; None if there is none."""
        return "drawn"

    def read(self, split: SplitName) -> Split:
        """Return one split, the same at every call."""
        count, size = self.images[split], self.image_size
        drawn = np.random.default_rng([0, self.splits.index(split)])
        images = torch.from_numpy(drawn.integers(0, 256, (count, 3, size, size), dtype=np.uint8))
        labels = torch.arange(count) % self.num_classes
        return Split(images, labels, tuple(f"class{k}" for k in range(self.num_classes)))
