"""scikit-learn's embedded handwritten digits: a real data set that needs no download."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from amtml_pl.data.source import DatasetSource
from amtml_pl.errors import UserError
from amtml_pl.types import Split, SplitName


class Digits(DatasetSource):
    """1,797 grey 8×8 digits, enlarged bilinearly to colour images.

    The split is stratified and the same in every run. Source:
    https://archive.ics.uci.edu/dataset/80 (its test part, the one that scikit-learn embeds).

    Args:
        test_fraction: share of the images in the test split, in [0.01, 0.99].
        image_size: height and width of the result in pixels.

    Raises:
        UserError: an argument is out of range.
    """

    splits: tuple[SplitName, ...] = ("train", "test")

    def __init__(self, test_fraction: float = 0.2, image_size: int = 32) -> None:
        if not 0.01 <= test_fraction <= 0.99 or image_size < 8:  # else a class could be missing in a split
            raise UserError(
                f"A Digits argument is out of range (got {test_fraction=}, {image_size=}, "
                "expected test_fraction from 0.01 to 0.99 and image_size of at least 8)."
            )
        self.test_fraction = test_fraction
        self.image_size = image_size

    def identity(self) -> dict[str, Any]:
        """Return what determines the pixels, as JSON."""
        return {"source": "Digits", "test_fraction": self.test_fraction, "image_size": self.image_size}

    def signature(self) -> str | None:
        """Return a cheap identity of the local raw data; None if there is none."""
        return "embedded in scikit-learn"

    def read(self, split: SplitName) -> Split:
        """Return one split, in the order of the whole data set."""
        digits = load_digits()
        train, test = train_test_split(
            np.arange(len(digits.target)),
            test_size=self.test_fraction,
            random_state=0,
            stratify=digits.target,
        )
        rows = np.sort(train if split == "train" else test)
        grey = torch.from_numpy(digits.images[rows])[:, None] / 16  # the brightest value
        enlarged = F.interpolate(grey, size=self.image_size, mode="bilinear", align_corners=False)
        images = (enlarged * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
        labels = torch.from_numpy(digits.target[rows]).to(torch.int64)
        return Split(images, labels, tuple(map(str, digits.target_names)))
