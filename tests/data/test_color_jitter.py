import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torchvision.transforms.functional import adjust_hue

from amtml_pl.data.color_jitter import ColorJitter
from amtml_pl.data.counter_rng import random_bits, uniform

pytestmark = pytest.mark.numbers

AMOUNTS = {"brightness": 0.6, "contrast": 1.5, "saturation": 0.9, "hue": 0.5}
ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "saturation": ImageEnhance.Color,
}
KEYS = random_bits(0, np.arange(40))


def pictures():
    images = torch.randint(
        0, 256, (40, 3, 24, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    images[0], images[1], images[2] = 0, 255, images[2, :1]
    images[3:8] //= 8
    return images


def by_pillow(image, name, draw):
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    if name == "hue":
        picture = adjust_hue(picture, AMOUNTS["hue"] * (2 * draw - 1))
    else:
        low, high = max(0.0, 1 - AMOUNTS[name]), 1 + AMOUNTS[name]
        picture = ENHANCERS[name](picture).enhance(low + (high - low) * draw)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


@pytest.mark.parametrize("names", [[name] for name in AMOUNTS] + [list(AMOUNTS)], ids="-".join)
def test_colors_equal_those_of_pillow_and_torchvision_to_the_bit(names):
    draws = uniform(KEYS, view=5, count=4)
    expected = pictures()
    for name in names:
        column = list(AMOUNTS).index(name)
        expected = torch.stack(
            [by_pillow(image, name, float(draws[i, column])) for i, image in enumerate(expected)]
        )
    got = ColorJitter(**{name: AMOUNTS[name] for name in names})(pictures(), KEYS, 5)
    assert torch.equal(got, expected)
