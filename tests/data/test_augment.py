import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image, ImageOps
from scipy.stats import chi2

from amtml_pl.data.augment import Augmentation, CropFlip, Cutout, RandomErasing
from amtml_pl.data.color_jitter import ColorJitter
from amtml_pl.data.resized_crop import RandomResizedCrop
from amtml_pl.data.trivial_augment import TrivialAugmentWide
from amtml_pl.errors import UserError
from amtml_pl.runs.identity import run_hash

pytestmark = pytest.mark.numbers

CONF = Path(__file__).parents[2] / "conf" / "augment"
OPERATIONS = {
    "crop_flip": [CropFlip()],
    "crop": [CropFlip(padding=2, flip=False)],
    "erasing": [RandomErasing(probability=0.7)],
    "cutout": [Cutout(5)],
    "color": [ColorJitter(0.4, 0.4, 0.4, 0.1)],
    "resized": [RandomResizedCrop()],
    "trivial": [RandomResizedCrop(), TrivialAugmentWide()],
    "all": [CropFlip(), ColorJitter(0.4, 0.4, 0.4, 0.1), RandomErasing(1.0, value=127), Cutout(8)],
}


def pictures(number, height=32, width=32):
    return torch.randint(
        0, 256, (number, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=15)
@given(seed=st.integers(-5, 2**40), view=st.integers(0, 500), data=st.data())
def test_pixels_of_a_sample_do_not_depend_on_its_batch(name, seed, view, data):
    images, augment = pictures(10, 11, 14), Augmentation(OPERATIONS[name], seed)
    chosen = torch.tensor(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=9)))
    batch = augment(images[chosen], chosen, view)
    alone = [augment(images[i : i + 1], torch.tensor([i]), view)[0] for i in chosen.tolist()]
    assert torch.equal(batch, torch.stack(alone))


@pytest.mark.parametrize("name", OPERATIONS)
def test_pixels_depend_neither_on_threads_nor_on_random_state(name):
    images, index, augment = pictures(300), torch.arange(300), Augmentation(OPERATIONS[name])
    torch.manual_seed(1)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    many = augment(images, index, 7)
    try:
        torch.set_num_threads(1)
        one = augment(images, index, 7)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(many, one)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.gpu
@pytest.mark.parametrize("name", OPERATIONS)
def test_pixels_do_not_depend_on_the_device(name):
    images, index, augment = pictures(300), torch.arange(300), Augmentation(OPERATIONS[name])
    for view in (0, 1, 7):
        assert torch.equal(augment(images.cuda(), index, view).cpu(), augment(images, index, view))


@pytest.mark.parametrize("name", OPERATIONS)
def test_view_zero_is_the_image_divided_by_255_exactly(name):
    images = pictures(4)
    got = Augmentation(OPERATIONS[name])(images, torch.arange(4), 0)
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), images.numpy() / np.float32(255))


@pytest.mark.parametrize("name", OPERATIONS)
def test_another_seed_view_or_sample_has_other_pixels(name):
    images, index = pictures(1).expand(64, -1, -1, -1), torch.arange(64)
    first = Augmentation(OPERATIONS[name], 0)(images, index, 1)
    assert not torch.equal(first, Augmentation(OPERATIONS[name], 1)(images, index, 1))
    assert not torch.equal(first, Augmentation(OPERATIONS[name], 0)(images, index, 2))
    assert len(torch.unique(first, dim=0)) > 1  # samples have different orders of views


def padded_crops_and_flips(image, padding):
    """Yield every view as Pillow computes it, as bytes of uint8 pixels."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    padded = ImageOps.expand(picture, padding)
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            crop = padded.crop((left, top, left + picture.width, top + picture.height))
            yield crop.tobytes()
            yield ImageOps.mirror(crop).tobytes()


def as_bytes(image):
    return (image * 255).round().byte().permute(1, 2, 0).numpy().tobytes()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 12)])
def test_162_views_in_a_row_are_all_crops_and_flips_once_each(height, width):
    image, augment = pictures(1, height, width), Augmentation([CropFlip(padding=4)])
    expected = set(padded_crops_and_flips(image[0], 4))
    assert len(expected) == 162
    for sample, first in [(0, 1), (5, 100)]:
        views = [augment(image, torch.tensor([sample]), view)[0] for view in range(first, first + 162)]
        assert {as_bytes(view) for view in views} == expected
    assert torch.equal(augment(image, torch.tensor([5]), 3), augment(image, torch.tensor([5]), 165))


def test_the_first_two_views_are_spread_evenly_over_all_crops_and_flips():
    samples = 162 * 60
    image, augment = pictures(1, 3, 3), Augmentation([CropFlip(padding=4)])
    image[0, 0] = torch.arange(1, 10).view(3, 3)  # large shifts leave few pixels: they must still differ
    wide = torch.zeros(1, 3, 11, 11, dtype=torch.uint8)
    wide[..., 4:7, 4:7] = image
    for view in (1, 2):
        views = augment(wide.expand(samples, -1, -1, -1), torch.arange(samples), view)
        kinds, counts = torch.unique(views, dim=0, return_counts=True)
        assert len(kinds) == 162
        assert ((counts - 60) ** 2 / 60).sum() < chi2.ppf(0.99, 161)


@pytest.mark.parametrize(
    ("operations", "views"),
    [([], 1), ([CropFlip(padding=0)], 2), ([CropFlip(flip=False)], 81), ([CropFlip()], 162),
     ([CropFlip(), RandomErasing()], None), ([Cutout(8)], None), ([ColorJitter(0.1)], None),
     ([RandomResizedCrop()], None), ([TrivialAugmentWide()], None)],
)  # fmt: skip
def test_the_number_of_distinct_views_is_known(operations, views):
    assert Augmentation(operations).distinct_views == views


def erased_boxes(operation, number=500, size=40):
    """Return how many rows and columns of each image are black, and check that they form a rectangle."""
    white = torch.full((number, 3, size, size), 255, dtype=torch.uint8)
    erased = Augmentation([operation])(white, torch.arange(number), 1) == 0
    assert torch.equal(erased[:, 0], erased[:, 1])
    rows, columns = erased[:, 0].any(dim=2), erased[:, 0].any(dim=1)
    assert torch.equal(erased[:, 0], rows[:, :, None] & columns[:, None, :])
    return rows.sum(dim=1), columns.sum(dim=1)


def test_random_erasing_has_the_given_areas_ratios_and_probability():
    operation = RandomErasing(probability=0.5, scale=(0.05, 0.3), ratio=(0.5, 2.0))
    heights, widths = erased_boxes(operation)
    erased = heights > 0
    assert 0.45 < erased.double().mean() < 0.55
    area = (heights * widths)[erased] / 1600
    ratio = heights[erased] / widths[erased]
    assert 0.04 < area.min() < 0.08
    assert 0.25 < area.max() < 0.32
    assert 0.4 < ratio.min() < 0.6
    assert 1.8 < ratio.max() < 2.4


def test_random_erasing_with_probability_0_and_1_and_without_a_fitting_rectangle():
    assert (erased_boxes(RandomErasing(probability=1))[0] > 0).all()
    for never in (RandomErasing(probability=0), RandomErasing(1.0, scale=(1.0, 1.0), ratio=(3.0, 3.0))):
        assert erased_boxes(never, number=5)[0].sum() == 0


def test_cutout_blackens_a_square_that_the_border_may_cut():
    heights, widths = erased_boxes(Cutout(8))
    assert heights.min() == widths.min() == 4  # the centre stays inside the image
    assert heights.max() == widths.max() == 8
    assert abs((heights == 8).double().mean() - 33 / 40) < 0.05


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CropFlip(padding=-1), "padding of CropFlip is -1 .expected 0 or more"),
        (lambda: RandomErasing(ratio=[0, 2]), r"ratio of RandomErasing is \[0, 2\] \(expected"),
        (lambda: RandomErasing(ratio=[1, math.inf]), r"ratio of RandomErasing is \[1, inf\] \(expected"),
        (lambda: RandomErasing(value=256), r"value of RandomErasing is 256 .expected 0 to 255"),
        (lambda: Cutout(0), "size of Cutout is 0 .expected 1 pixel"),
        (lambda: ColorJitter(hue=0.6), r"hue of ColorJitter is 0.6 .expected 0 to 0.5"),
    ],
)
def test_impossible_parameters_are_refused_by_name(make, text):
    with pytest.raises(UserError, match=text):
        make()


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_augmentation_can_be_built_and_run(file, configure):
    assert file.read_text().startswith("# @package data.augment\n")
    config = configure(f"augment={file.stem}", "data.seed=3")
    augment = instantiate(config.data.augment, _convert_="all")
    assert augment.seed == 3
    assert augment(pictures(2), torch.arange(2), 1).shape == (2, 3, 32, 32)


def test_images_larger_than_64_pixels_have_resized_crops_by_default(configure):
    for size, name in ((32, "crop_flip"), (64, "crop_flip"), (65, "resized_crop"), (224, "resized_crop")):
        default, chosen = (
            configure("dataset=synthetic", f"dataset.image_size={size}", *words)
            for words in ((), (f"augment={name}",))
        )
        assert OmegaConf.to_container(default.data.augment, resolve=True) == OmegaConf.to_container(
            chosen.data.augment, resolve=True
        )
        assert run_hash(default) == run_hash(chosen)


def test_a_size_of_another_type_is_reported_as_such(mistake):
    assert "dataset.image_size='large': expected" in mistake("dataset.image_size=large")
