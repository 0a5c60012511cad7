"""Random resized crops have torchvision's distribution, and the pixels of plain loops."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop as Torchvisions

from amtml_pl.data import resized_crop
from amtml_pl.data.augment import Augmentation
from amtml_pl.data.counter_rng import random_bits, uniform
from amtml_pl.data.resized_crop import RandomResizedCrop, log_uniform
from amtml_pl.errors import UserError

pytestmark = pytest.mark.numbers


def pictures(number, height=13, width=17):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, height, width), dtype=torch.uint8, generator=generator)


def window(operation, key, view, H, W):
    """Return top, left, height and width of one image's window, and whether it is mirrored, by loops."""
    draws = [float(draw) for draw in uniform(np.array([key]), view, 23)[0]]
    mirrored = operation.flip and draws[2] < 0.5
    for area_draw, ratio_draw in zip(draws[3::2], draws[4::2], strict=True):
        area = H * W * (operation.scale[0] + (operation.scale[1] - operation.scale[0]) * area_draw)
        ratio = float(log_uniform(*operation.ratio, np.array([ratio_draw]))[0])
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= W and 0 < height <= H:
            top, left = (
                math.floor(d * (n + 1)) for d, n in zip(draws, (H - height, W - width), strict=False)
            )
            return top, left, height, width, mirrored
    height, width = operation.centre(H, W)
    return (H - height) // 2, (W - width) // 2, height, width, mirrored


def tap(x, length, size):
    """Return the two source pixels of output pixel ``x`` of a window, and the second's weight in 256ths."""
    position = Fraction((2 * x + 1) * length, 2 * size) - Fraction(1, 2)
    before = math.floor(position)
    weight = math.floor((position - before) * 256 + Fraction(1, 2))
    return max(before, 0), min(before + 1, length - 1), weight


def by_loops(image, top, left, height, width, mirrored):
    """Return the enlarged window, pixel by pixel in Python's integers."""
    _, H, W = image.shape
    pixels, result = image.tolist(), torch.zeros_like(image)
    for y in range(H):
        above, below, down = tap(y, height, H)
        for x in range(W):
            before, after, right = tap(W - 1 - x if mirrored else x, width, W)
            for c in range(3):
                upper, lower = pixels[c][top + above], pixels[c][top + below]
                first = upper[left + before] * (256 - down) + lower[left + before] * down
                second = upper[left + after] * (256 - down) + lower[left + after] * down
                result[c, y, x] = (first * (256 - right) + second * right + 2**15) >> 16
    return result


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    view=st.integers(1, 500),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    scale=st.sampled_from([(0.08, 1.0), (0.5, 0.5), (1.0, 1.0)]),
    ratio=st.sampled_from([(0.75, 4 / 3), (2, 3)]),
)
def test_pixels_equal_those_of_loops_over_integers_to_the_bit(seed, view, height, width, scale, ratio):
    operation = RandomResizedCrop(scale, ratio)
    images, keys = pictures(3, height, width), random_bits(seed, np.arange(3))
    expected = [
        by_loops(image, *window(operation, key, view, height, width))
        for image, key in zip(images, keys, strict=True)
    ]
    assert torch.equal(operation(images, keys, view), torch.stack(expected))


@settings(max_examples=15, deadline=None)
@given(data=st.data(), view=st.integers(1, 500), chunk=st.sampled_from([1, 2000, 2**20]))
def test_pixels_depend_on_neither_the_batch_nor_the_size_of_a_chunk(data, view, chunk):
    images, augment = pictures(10), Augmentation([RandomResizedCrop()], seed=3)
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=9)))
    whole = augment(images, torch.arange(10), view)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resized_crop, "CHUNK_BYTES", chunk)
        assert torch.equal(augment(images[chosen], chosen, view), whole[chosen])


def test_pixels_differ_from_pillows_by_two_levels_at_most():
    smooth = np.asarray(Image.fromarray(pictures(1, 8, 8)[0].permute(1, 2, 0).numpy()).resize((64, 64)))
    image = torch.from_numpy(smooth.copy()).permute(2, 0, 1)
    operation = RandomResizedCrop(flip=False)
    for view in range(1, 20):
        key = random_bits(0, np.arange(1))
        top, left, height, width, _ = window(operation, key[0], view, 64, 64)
        crop = Image.fromarray(smooth[top : top + height, left : left + width])
        expected = np.asarray(crop.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
        got = operation(image[None], key, view)[0].permute(1, 2, 0).numpy()
        assert abs(got - expected).max() <= 2


def drawn(operation, number, height, width):
    """Return the shares of the area, and the ratios, of many windows."""
    draws = uniform(random_bits(5, np.arange(number)), 1, 23)
    heights, widths, _ = operation.window(draws[:, 3:], height, width)
    return (heights * widths / (height * width)).ravel(), (widths / heights).ravel()


@pytest.mark.parametrize(("height", "width"), [(224, 224), (120, 300)])
def test_areas_and_ratios_are_distributed_as_torchvisions(height, width):
    torch.manual_seed(0)
    blank = torch.empty(3, height, width)
    theirs = [Torchvisions.get_params(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)]
    areas, ratios = drawn(RandomResizedCrop(), 20_000, height, width)
    assert ks_2samp(areas, [h * w / (height * width) for _, _, h, w in theirs]).pvalue > 0.001
    assert ks_2samp(ratios, [w / h for _, _, h, w in theirs]).pvalue > 0.001


@pytest.mark.parametrize(
    ("height", "width", "ratio"), [(10, 40, (0.75, 1.5)), (40, 10, (0.75, 1.5)), (20, 20, (2.0, 3.0))]
)
def test_the_centre_is_taken_where_no_attempt_fits_as_in_torchvision(height, width, ratio):
    scale = (1.0, 1.0)
    top, left, h, w = Torchvisions.get_params(torch.empty(3, height, width), list(scale), list(ratio))
    image = torch.zeros(1, 3, height, width, dtype=torch.uint8)
    image[..., top : top + h, left : left + w] = 200
    image[..., top, left] = 100
    operation = RandomResizedCrop(scale, ratio, flip=False)
    got = operation(image, random_bits(0, np.arange(1)), 1)
    assert operation.centre(height, width) == (h, w)
    assert (got >= 100).all()
    assert got[0, 0, 0, 0] == 100


def test_the_power_is_log_uniform_to_the_precision_of_its_digits():
    draws = np.linspace(0, 1, 1000, endpoint=False)
    np.testing.assert_allclose(log_uniform(0.75, 4 / 3, draws), 0.75 * (16 / 9) ** draws, rtol=1e-6)


def test_half_of_the_views_are_mirrored_and_none_without_flip():
    image = torch.arange(40, dtype=torch.uint8).expand(200, 3, 40, 40)
    index = torch.arange(200)
    for flip, least, most in ((True, 70, 130), (False, 0, 0)):
        views = Augmentation([RandomResizedCrop(flip=flip)])(image, index, 1)
        assert least <= (views[..., 0] > views[..., -1]).all(dim=(1, 2)).sum() <= most


def test_the_whole_image_without_a_flip_is_the_image():
    images = pictures(4, 9, 9)
    whole = RandomResizedCrop(scale=(1, 1), ratio=(1, 1), flip=False)
    assert torch.equal(whole(images, random_bits(0, np.arange(4)), 1), images)


def test_the_fingerprint_names_the_operation_and_its_arguments():
    [operation] = Augmentation([RandomResizedCrop()]).identity()["operations"]
    assert operation["operation"] == "random_resized_crop"
    assert operation["scale"] == (0.08, 1.0)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [({"scale": [0, 1]}, r"scale of RandomResizedCrop is \[0, 1\] \(expected \[a, b\], 0 < a"),
     ({"scale": [0.5, 1.2]}, "scale"), ({"scale": [0.5, 0.2]}, "scale"), ({"scale": [0.5]}, "scale"),
     ({"ratio": [2, 1]}, "ratio of RandomResizedCrop"), ({"ratio": [1, math.inf]}, "ratio"),
     ({"ratio": [math.nan, 1]}, "ratio")],
)  # fmt: skip
def test_impossible_parameters_are_refused_by_name(arguments, text):
    with pytest.raises(UserError, match=text):
        RandomResizedCrop(**arguments)
