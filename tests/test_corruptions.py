"""Corrupted images: what each corruption does, stronger each time, and the same however they are batched."""

import colorsys

import pytest
import torch

from amtml_pl.corruptions import CORRUPTIONS, SEVERITIES, corrupt


@pytest.fixture
def images():
    """Smooth ones, as photographs are: noise alone would be what a JPEG file loses."""
    coarse = torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    smooth = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    return (smooth * 255).round() / 255


INDEX = torch.arange(6)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_every_corruption_gives_pixels_of_eight_bits_that_are_farther_off_at_a_higher_severity(images, kind):
    distance = []
    for severity in SEVERITIES:
        found = corrupt(images, INDEX, kind, severity)
        assert found.shape == images.shape
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        assert torch.allclose(found * 255, (found * 255).round(), atol=1e-3)
        distance.append(float((found - images).abs().mean()))
    assert distance == sorted(distance)
    assert distance[0] > 0


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_sample_is_corrupted_alike_in_any_batch(images, kind):
    whole = corrupt(images, INDEX, kind, 3)
    some = torch.tensor([4, 1])
    assert torch.equal(corrupt(images[some], some, kind, 3), whole[some])


def test_noise_has_the_published_deviation_and_another_seed_is_other_noise():
    grey = torch.full((6, 3, 32, 32), 0.5)
    found = corrupt(grey, INDEX, "gaussian_noise", 5)
    assert float(found.std()) == pytest.approx(0.10, rel=0.03)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(corrupt(grey, INDEX, "gaussian_noise", 5, seed=1), found)


def test_brightness_adds_to_the_value_of_hsv(images):
    found = corrupt(images, INDEX, "brightness", 4)
    for place in ((0, 3, 7), (5, 31, 0), (2, 16, 16)):
        row, y, x = place
        hue, saturation, value = colorsys.rgb_to_hsv(*images[row, :, y, x].tolist())
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.20))
        assert found[row, :, y, x].tolist() == pytest.approx(expected, abs=1.01 / 255)


def test_contrast_keeps_the_mean_and_shrinks_the_rest(images):
    found = corrupt(images, INDEX, "contrast", 2)
    assert torch.allclose(found.mean((2, 3)), images.mean((2, 3)), atol=1 / 255)
    assert torch.allclose(found.std((2, 3)), 0.5 * images.std((2, 3)), atol=1 / 255)
