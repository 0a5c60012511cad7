"""Resized images have torch's values, and the same bits in any batch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.models.resize import resize, triangle

pytestmark = pytest.mark.numbers

SIZES = [(32, 224), (224, 32), (32, 64), (64, 48), (31, 47), (100, 7), (5, 1), (1, 5)]


def images(number, length):
    return torch.rand(number, 3, length, length, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("length", "size"), SIZES)
def test_values_are_bilinear_and_antialiased_when_images_shrink(length, size):
    given = images(3, length)
    expected = F.interpolate(given.double(), size=(size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(resize(given, size).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("length", "size"), SIZES)
def test_an_image_has_the_same_bits_in_any_batch_and_layout(length, size):
    given = images(7, length)
    whole = resize(given, size)
    for part in (slice(0, 1), slice(4, 5), slice(2, 5), slice(0, 7)):
        assert torch.equal(resize(given[part], size), whole[part])
        assert torch.equal(resize(given[part].to(memory_format=torch.channels_last), size), whole[part])


def test_images_of_the_wanted_size_are_not_touched():
    given = images(2, 32)
    assert resize(given, 32) is given


def test_height_and_width_are_resized_each_from_its_own_length():
    given = torch.rand(2, 3, 20, 30)
    expected = F.interpolate(given.double(), size=(25, 25), mode="bilinear", antialias=True)
    torch.testing.assert_close(resize(given, 25).double(), expected, rtol=0, atol=1e-6)


@settings(max_examples=60)
@given(length=st.integers(1, 300), size=st.integers(1, 300))
def test_weights_of_a_pixel_sum_to_1_and_lie_inside_the_image(length, size):
    pixels, weights = triangle(length, size, torch.device("cpu"))
    assert (weights >= 0).all()
    assert weights.sum(0).sub(1).abs().max() < 1e-5
    assert 0 <= int(pixels.min()) <= int(pixels.max()) < length
