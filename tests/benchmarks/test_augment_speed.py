"""How fast views are made: pytest tests/benchmarks --benchmark-only."""

import pytest
import torch

from amtml_pl.augment import Augmentation, CropFlip, Cutout, RandomErasing
from amtml_pl.augment_color import ColorJitter

BATCH = 128


@pytest.mark.parametrize(
    "operations",
    [
        [CropFlip()],
        [CropFlip(), RandomErasing()],
        [CropFlip(), Cutout(8)],
        [CropFlip(), ColorJitter(0.4, 0.4, 0.4, 0.1)],
    ],
    ids=["crop_flip", "crop_flip_erasing", "crop_flip_cutout", "crop_flip_color"],
)
def test_views_of_a_whole_batch(benchmark, operations):
    images = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    index = torch.arange(BATCH)
    benchmark(Augmentation(operations), images, index, 17)
    benchmark.extra_info["images_per_second"] = round(BATCH / benchmark.stats.stats.median)
