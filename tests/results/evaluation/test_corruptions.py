"""Corruptions equal their published definitions, in any batch."""

import colorsys
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from amtml_pl.results.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupt

pytestmark = pytest.mark.numbers


@pytest.fixture
def images():
    """Return smooth images, as JPEG would remove most of pure noise."""
    coarse = torch.rand(6, 3, 5, 5, generator=torch.Generator().manual_seed(3))
    smooth = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    return (smooth * 255).round() / 255


INDEX = torch.arange(6)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_corruption_gives_8_bit_pixels_that_differ_more_at_a_higher_severity(images, kind):
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
def test_a_sample_is_corrupted_equally_in_every_batch(images, kind):
    whole = corrupt(images, INDEX, kind, 3)
    some = torch.tensor([4, 1])
    off = ((corrupt(images[some], some, kind, 3) - whole[some]) * 255).abs().max()
    sums = kind in ("gaussian_blur", "contrast")  # whose last digits may decide which 255th is the next lower
    assert off.item() <= (1.001 if sums else 0)


# From the authors' make_cifar_c.py, by severity.
PUBLISHED = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "jpeg_compression": (80, 65, 58, 50, 40),
}


def blurred(image, sigma):
    """Blur an image with a Gaussian cut off at four deviations, mirrored at the border."""
    reach = round(4 * sigma)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    for axis in (1, 2):
        padded = np.pad(image, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="reflect")
        size = image.shape[axis]
        image = sum(w * padded.take(range(k, k + size), axis) for k, w in enumerate(kernel))
    return image


def brightened(image, added):
    pixels = image.reshape(3, -1).T
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in pixels.tolist()]
    return np.array([colorsys.hsv_to_rgb(h, s, min(1, v + added)) for h, s, v in hsv]).T.reshape(image.shape)


def through_jpeg(image, quality):
    file = BytesIO()
    pixels = (image * 255).round().astype(np.uint8).transpose(1, 2, 0)
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).transpose(2, 0, 1) / 255


BY_DEFINITION = {
    "gaussian_blur": blurred,
    "brightness": brightened,
    "contrast": lambda image, kept: image.mean((1, 2), keepdims=True) * (1 - kept) + kept * image,
    "jpeg_compression": through_jpeg,
}


@pytest.mark.parametrize("kind", BY_DEFINITION)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_every_severity_is_the_published_one(images, kind, severity):
    found = corrupt(images[:1], INDEX[:1], kind, severity)[0]
    expected = BY_DEFINITION[kind](images[0].double().numpy(), PUBLISHED[kind][severity - 1])
    below = torch.from_numpy(expected).clamp(0, 1) - found  # rounded down to whole 255ths
    assert -1e-3 / 255 <= float(below.min()) <= float(below.max()) <= 1.001 / 255


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_published_deviation_in_every_severity(severity):
    grey = torch.full((6, 3, 32, 32), 0.5)
    found = corrupt(grey, INDEX, "gaussian_noise", severity)
    assert float(found.std()) == pytest.approx(PUBLISHED["gaussian_noise"][severity - 1], rel=0.03)


def test_the_noise_depends_on_the_image_and_the_seed():
    grey = torch.full((6, 3, 32, 32), 0.5)
    found = corrupt(grey, INDEX, "gaussian_noise", 5)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(corrupt(grey, INDEX, "gaussian_noise", 5, seed=1), found)
