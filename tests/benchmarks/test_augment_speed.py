"""Speed of making views: pytest tests/benchmarks --benchmark-only."""

import pytest
import torch

from amtml_pl.data.augment import Augmentation, CropFlip, Cutout, RandomErasing
from amtml_pl.data.color_jitter import ColorJitter
from amtml_pl.data.resized_crop import RandomResizedCrop
from amtml_pl.data.trivial_augment import TrivialAugmentWide

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


def test_resized_crops_of_224_pixels(benchmark, two_threads):
    images_per_second(benchmark, [RandomResizedCrop()], size=224)


def test_resized_crops_of_224_pixels_with_trivial_augment(benchmark, two_threads):
    images_per_second(benchmark, [RandomResizedCrop(), TrivialAugmentWide()], size=224)


@pytest.fixture
def two_threads():
    """Let torch use two cores, as a run on two cores does."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def images_per_second(benchmark, operations, size=32):
    """Return and record the median over batches."""
    images = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8)
    index = torch.arange(BATCH)
    benchmark(Augmentation(operations), images, index, 17)
    measured = round(BATCH / benchmark.stats.stats.median)
    benchmark.extra_info["images_per_second"] = measured
    return measured
