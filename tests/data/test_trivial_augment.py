"""TrivialAugment has torchvision's operations and strengths, with Pillow's pixels."""

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare
from torchvision.transforms import InterpolationMode
from torchvision.transforms import TrivialAugmentWide as Torchvisions
from torchvision.transforms.autoaugment import _apply_op

from amtml_pl.data.augment import Augmentation
from amtml_pl.data.counter_rng import random_bits, uniform
from amtml_pl.data.trivial_augment import CHANGES, LEVELS, TrivialAugmentWide, strengths

pytestmark = pytest.mark.numbers

SPACE = Torchvisions()._augmentation_space(LEVELS)
GREATEST = {"Rotate": 135.0, "TranslateX": 32.0, "TranslateY": 32.0}  # 0.99 for the others with a sign


def pictures(number, height=40, width=40):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (number, 3, height, width), dtype=torch.uint8, generator=generator)
    images[1::4] //= 8
    images[2::4] = images[2::4, :, :1, :1]
    images[3::4] = (images[3::4] > 250) * 200
    return images


def strength(name, level, sign):
    """Return the exact number that torchvision rounds to float32."""
    magnitudes, signed = SPACE[name]
    if signed:
        return float(strengths(np.array([level]), np.array([sign]), GREATEST.get(name, 0.99))[0])
    return float(magnitudes[level]) if magnitudes.ndim else 0.0


def by_pillow(image, name, level, sign):
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    changed = _apply_op(picture, name, strength(name, level, sign), InterpolationMode.NEAREST, fill=None)
    return torch.from_numpy(np.array(changed)).permute(2, 0, 1)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (21, 34), (3, 2)])
@pytest.mark.parametrize("name", CHANGES)
def test_each_change_equals_pillows_to_the_bit(name, height, width):
    levels, signs = np.array([*product(range(LEVELS), (-1, 1))]).T
    images = pictures(len(levels), height, width)
    expected = [by_pillow(image, name, *each) for *each, image in zip(levels, signs, images, strict=True)]
    assert torch.equal(CHANGES[name](images, levels, signs), torch.stack(expected))


def test_operations_and_strengths_are_torchvisions():
    assert list(CHANGES) == list(SPACE)
    for name, (magnitudes, signed) in SPACE.items():
        if signed:
            ours = [strength(name, level, 1) for level in range(LEVELS)]
            np.testing.assert_allclose(ours, magnitudes, rtol=1e-6, atol=1e-6)


def test_operations_strengths_and_signs_are_drawn_evenly():
    images = torch.full((20_000, 3, 3, 3), 100, dtype=torch.uint8)
    keys = random_bits(7, np.arange(20_000))
    brighter = CHANGES["Brightness"](images[:1], np.array([30]), np.array([1]))
    share = (
        (TrivialAugmentWide()(images, keys, 2) == brighter).all(dim=1).all(dim=1).all(dim=1).double().mean()
    )
    assert abs(share - 1 / 14 / 31 / 2) < 0.0015
    for column, kinds in ((0, 14), (1, 31), (2, 2)):
        counts = np.bincount((uniform(keys, 2, 3)[:, column] * kinds).astype(int), minlength=kinds)
        assert chisquare(counts).pvalue > 0.001


def test_the_given_images_stay_as_they_are():
    images = pictures(60)
    before = images.clone()
    TrivialAugmentWide()(images, random_bits(0, np.arange(60)), 1)
    assert torch.equal(images, before)


def test_the_fingerprint_names_the_operation():
    augment = Augmentation([TrivialAugmentWide()])
    assert augment.identity()["operations"] == [{"operation": "trivial_augment_wide"}]
