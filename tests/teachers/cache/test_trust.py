"""Changes of files, images, code and teachers, and the check of the cache that finds each."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_cache import AUGMENT, OPTIONS, ROWS, built, network, split, stores, tree
from torch import nn

from amtml_pl.data.augment import Augmentation, CropFlip
from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.teachers.cache.storage import pixel_checksums
from amtml_pl.teachers.cache.trust import compare_outputs, compare_pixels, probe, verify_checksums
from rounding import rounding

pytestmark = pytest.mark.numbers

VIEWS = [1, 2]
CONSOLE = Console(file=io.StringIO())


def no_teacher():
    pytest.fail("this check needs no teacher")


def unloaded(root, **settings):
    return stores(root, load=no_teacher, **settings)


@pytest.fixture
def root(tmp_path):
    built(tmp_path, [stores(tmp_path)], VIEWS)
    return tmp_path


def generator():
    return np.random.default_rng(0)


# ---- files


def test_a_flipped_bit_is_noticed_and_the_fix_restores_the_file(root):
    whole, teacher = tree(root), unloaded(root)
    file = teacher.stores["conv"].shard_file(2, 1)
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"checksum of {file}.*expected") as refused:
        verify_checksums([teacher], VIEWS, CONSOLE)
    assert f"rm -r '{file}'" in refused.value.fix
    file.unlink()
    assert built(root, [stores(root)], VIEWS).teacher_passes == {"big": 8}
    assert tree(root) == whole


# ---- pixels


def test_two_images_share_a_checksum_only_where_all_pixels_do():
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    changed = images.clone()
    changed[1, 2, 7, 7] = torch.nextafter(changed[1, 2, 7, 7], torch.tensor(2.0))
    assert (pixel_checksums(images) == pixel_checksums(changed)).tolist() == [True, False, True]
    strided = images.to(memory_format=torch.channels_last)
    assert torch.equal(pixel_checksums(strided), pixel_checksums(images))


def test_the_pixels_that_a_cache_was_built_from_pass_without_a_teacher(root):
    probe([unloaded(root)], split(), AUGMENT, VIEWS, generator=generator())
    probe([unloaded(root)], split(), AUGMENT, VIEWS)
    for view in VIEWS:
        compare_pixels([unloaded(root)], split(), AUGMENT, view)


class MirroredCropFlip(CropFlip):
    """An operation with changed code, and the same settings and name in the fingerprint."""

    def __call__(self, images, keys, view):
        return super().__call__(images, keys, view).flip(-1)


CHANGED = {
    "padding": Augmentation([CropFlip(padding=1)], seed=3),
    "seed": Augmentation([CropFlip(padding=2)], seed=4),
    "code": Augmentation([MirroredCropFlip(padding=2)], seed=3),
}


@pytest.mark.parametrize("change", CHANGED)
def test_another_augmentation_is_noticed_without_a_teacher(root, change):
    with pytest.raises(UserError, match=r"pixels of train sample \d+ in view [12]") as refused:
        probe([unloaded(root)], split(), CHANGED[change], VIEWS, generator=generator())
    assert "augmentation code have changed" in refused.value.what
    assert f"rm -r '{unloaded(root).logits.folder}'" in refused.value.fix


def test_one_changed_image_is_noticed_with_both_checksums(root):
    teacher = unloaded(root)
    for sample in range(ROWS):
        images, index = split(), torch.tensor([sample])
        images.stored.images[images.rows[sample]] ^= 1
        now = pixel_checksums(AUGMENT(images.stored.images[images.rows[index]], index, 2)).item()
        then = teacher.logits.open(2).pixels(index).item()
        expected = rf"pixels of train sample {sample} .*{now:08x}, expected {then:08x}"
        with pytest.raises(UserError, match=expected):
            compare_pixels([teacher], images, AUGMENT, 2)
    with pytest.raises(UserError, match=f"train sample {ROWS - 1}"):
        probe([unloaded(root)], images, AUGMENT, VIEWS, pairs=400, generator=generator())


def test_the_pixels_of_a_later_store_are_compared_too(root):
    images = split()
    images.stored.images[:] = 255 - images.stored.images
    built(root, [stores(root, "other", taps=())], VIEWS, images=images)
    teachers = [unloaded(root), unloaded(root, name="other", taps=())]
    with pytest.raises(UserError, match=str(teachers[1].logits.folder)):
        probe(teachers, split(), AUGMENT, VIEWS, generator=generator())


# ---- teachers


def changed(weights):
    def load():
        made = network(0)
        with torch.no_grad():
            weights(made.network)
        return made

    return load


CHANGES = {
    "its classifier": changed(lambda made: made.fc.weight.mul_(1.05)),
    "one class": changed(lambda made: made.fc.bias[2].add_(0.1)),
    "no numbers": changed(lambda made: made.fc.weight.fill_(float("nan"))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_teacher_is_noticed_with_teacher_tensor_sample_view_and_difference(root, change):
    teacher, folder = stores(root, load=CHANGES[change]), stores(root).logits.folder
    expected = (
        rf"'logits' of teacher 'big' for train sample \d+ in view 1 does not match the cache {folder}.*"
        rf"relative difference of .*, expected at most 2e-03(.|\n)*rm -r '{folder}'"
    )
    with pytest.raises(UserError, match=expected):
        compare_outputs(teacher, split(), AUGMENT, VIEWS, 5, OPTIONS, generator())


class Branched(nn.Module):
    """A network whose tapped module does not contribute to the logits."""

    def __init__(self, scale):
        super().__init__()
        self.branch = network(0).network.conv
        self.branch.weight.data.mul_(scale)
        self.trunk = network(0).network

    def forward(self, images):
        self.branch(images)
        return self.trunk(images)


@pytest.mark.parametrize(
    ("storage", "within"), [("float32", rounding(27)), ("float16", 1e-3), ("int8", 1 / 250)]
)
def test_a_hint_that_changes_alone_is_noticed(tmp_path, storage, within):
    def branched(scale):
        def load():
            return TappedNetwork(Branched(scale), mean=[0.5] * 3, std=[0.25] * 3, taps=("branch",))

        return stores(tmp_path, taps=("branch",), hints=storage, load=load)

    built(tmp_path, [branched(1.0)], VIEWS)
    other_batches = replace(OPTIONS, batch_size=7)
    found = compare_outputs(branched(1.0), split(), AUGMENT, VIEWS, ROWS, other_batches, generator())
    assert found.keys() == {"logits", "branch"}
    assert 0 <= found["logits"] < 1e-3
    assert 0 <= found["branch"] <= within
    with pytest.raises(UserError, match=r"Output 'branch' .* does not match"):
        compare_outputs(branched(1.05), split(), AUGMENT, VIEWS, ROWS, OPTIONS)


def test_another_class_is_noticed_even_where_the_logits_are_almost_the_same(tmp_path):
    def tied(favourite):
        def weights(made):
            made.fc.weight.zero_()
            made.fc.bias.copy_(torch.tensor([1.0, 1.0, 0.0, 0.0]))
            made.fc.bias[favourite] += 1e-3

        return changed(weights)

    built(tmp_path, [stores(tmp_path, load=tied(0))], VIEWS)
    with pytest.raises(UserError, match=r"Output 'logits' .* does not match"):
        compare_outputs(stores(tmp_path, load=tied(1)), split(), AUGMENT, VIEWS, 5, OPTIONS, generator())


def test_int8_hints_of_a_faint_image_beside_strong_ones_are_rounding(tmp_path):
    images = split()
    faint = images.stored.images[images.rows[0]]
    images.stored.images[images.rows[0]] = (127.5 + (faint.float() - 127.5) / 30).round().to(torch.uint8)

    def load():
        made = network(0)
        made.network.conv.bias.data.zero_()
        return made

    teacher = stores(tmp_path, hints="int8", load=load)
    plain = Augmentation([], seed=3)
    built(tmp_path, [teacher], [0], images=images)
    compare_outputs(teacher, images, plain, [0], ROWS, OPTIONS, generator())
