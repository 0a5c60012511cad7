"""Speed of making views: pytest tests/benchmarks --benchmark-only."""

import pytest
import torch

from amtml_pl.data.augment import Augmentation, CropFlip, Cutout, RandomErasing
from amtml_pl.data.color_jitter import ColorJitter

BATCH = 128
GOAL = 30_000  # images/s for crop and flip at 32×32, on one worker


@pytest.mark.parametrize(
    "operations",
    [[CropFlip(), RandomErasing()], [CropFlip(), Cutout(8)], [CropFlip(), ColorJitter(0.4, 0.4, 0.4, 0.1)]],
    ids=["crop_flip_erasing", "crop_flip_cutout", "crop_flip_color"],
)
def test_views_of_a_whole_batch(benchmark, operations):
    images_per_second(benchmark, operations)


def test_crop_and_flip_reach_the_goal(benchmark):
    assert images_per_second(benchmark, [CropFlip()]) >= GOAL


def images_per_second(benchmark, operations):
    """Return and record the median over batches."""
    images = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8)
    index = torch.arange(BATCH)
    benchmark(Augmentation(operations), images, index, 17)
    measured = round(BATCH / benchmark.stats.stats.median)
    benchmark.extra_info["images_per_second"] = measured
    return measured
