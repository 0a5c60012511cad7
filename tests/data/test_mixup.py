"""Mixup repeats, blends images and labels alike, and is kept away from what it would make wrong."""

from dataclasses import replace

import pytest
import torch

from amtml_pl.config.checks import check
from amtml_pl.data.augment import Augmentation
from amtml_pl.data.counter_rng import random_bits
from amtml_pl.data.datasets.digits import Digits
from amtml_pl.data.mixup import mixup
from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from amtml_pl.losses.cross_entropy import CrossEntropy
from amtml_pl.types import Mixed
from steps import make_step
from tiny_runs import TINY, assert_bitwise_equal, weights


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack(Digits(image_size=8), tmp_path_factory.mktemp("packed"))


def data(packed, **options):
    return PackedDataModule(packed, order_seed=0, augment=Augmentation([]), batch_size=64, **options)


@pytest.mark.numbers
def test_an_image_is_its_share_of_itself_and_the_rest_of_its_partner():
    images, labels = torch.rand(6, 3, 4, 4), torch.arange(6)
    blended, mixed = mixup(images, labels, 0.4, random_bits(7, 0))
    assert 0 <= mixed.share <= 1
    for i in range(6):
        expected = mixed.share * images[i] + (1 - mixed.share) * images[mixed.labels[i]]
        torch.testing.assert_close(blended[i], expected)


def test_shares_follow_the_beta_distribution():
    images, labels = torch.zeros(2, 3, 1, 1), torch.zeros(2, dtype=torch.long)
    shares = torch.stack([mixup(images, labels, 1.0, random_bits(0, i))[1].share for i in range(1000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.03)  # Beta(1, 1) is uniform
    assert shares.std() == pytest.approx(12**-0.5, abs=0.02)


def test_batches_repeat_and_differ_between_epochs_and_from_each_other(packed):
    first, again = ([*data(packed, mixup=0.5).train_batches(3)] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.mixed.labels, other.mixed.labels)
    shares = {float(batch.mixed.share) for batch in first}
    assert len(shares) == len(first)
    assert shares.isdisjoint(float(b.mixed.share) for b in data(packed, mixup=0.5).train_batches(4))


def test_without_it_and_in_evaluation_images_are_themselves(packed):
    assert next(iter(data(packed).train_batches(0))).mixed is None
    module = data(packed, mixup=0.5)
    assert next(iter(module.eval_batches(module.split("val")))).mixed is None


@pytest.mark.numbers
def test_cross_entropy_counts_each_label_as_much_as_its_image():
    step = make_step()
    partner = torch.randperm(6)
    mixed = replace(step, mixed=Mixed(step.labels[partner], torch.tensor(0.3)))
    naive = 0.3 * CrossEntropy()(step) + 0.7 * CrossEntropy()(replace(step, labels=step.labels[partner]))
    torch.testing.assert_close(CrossEntropy()(mixed), naive)


def test_mixup_with_a_cache_is_refused(configure):
    with pytest.raises(UserError, match=r"mixup blends images of a batch, and a cache.*teacher_source=live"):
        check(configure("experiment=digits_amtml", "data.mixup=0.2"))


@pytest.mark.parametrize(
    ("parts", "words"),
    [(["method=amtml", "loss=[ce,kd,adapter_nll]"], r"the loss terms \['adapter_nll'\] read one label"),
     (["method=mmkd"], "MMKD reads one label"), (["method=mtkd_rl"], "MTKDRL reads one"),
     (["method=avg", "weighting=confidence"], "ConfidenceWeighting reads one label")],
)  # fmt: skip
def test_parts_that_read_one_label_per_image_are_refused_with_mixup(run, parts, words):
    with pytest.raises(UserError, match=words):
        run("experiment=digits", *TINY, *parts, "data.mixup=0.2", "teacher_source=live")


@pytest.mark.slow
def test_a_run_with_live_teachers_repeats_to_the_bit(run):
    job = ("experiment=digits_amtml", *TINY, "trainer.max_epochs=1", "data.mixup=0.2", "teacher_source=live")
    _, first = run(*job, name="first")
    _, second = run(*job, name="second")
    assert_bitwise_equal(weights(first), weights(second))
