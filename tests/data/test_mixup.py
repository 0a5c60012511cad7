"""Mixup repeats, blends images and labels alike, and is refused where it would give wrong results."""

from dataclasses import replace

import pytest
import torch

from amtml_pl.config.checks import check
from amtml_pl.data.augment import Augmentation
from amtml_pl.data.counter_rng import random_bits
from amtml_pl.data.datasets.digits import Digits
from amtml_pl.data.mixup import Mixup
from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from amtml_pl.losses.ce import CrossEntropy
from amtml_pl.types import Batch, Mixed
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
    blended = Mixup(0.4, random_bits(7, 0))(Batch(images, labels, labels, 1, "train"))
    share, partners = blended.mixed.share, blended.mixed.labels
    assert 0 <= share <= 1
    torch.testing.assert_close(blended.images, share * images + (1 - share) * images[partners])


def test_shares_follow_the_beta_distribution():
    images, mix = torch.zeros(1, 3, 1, 1), Mixup(1.0, random_bits(0, 0))
    index = torch.arange(300).view(-1, 1)
    shares = torch.stack([mix(Batch(images, i, i, 1, "train")).mixed.share for i in index])
    assert shares.mean() == pytest.approx(0.5, abs=0.05)  # Beta(1, 1) is uniform
    assert shares.std() == pytest.approx(12**-0.5, abs=0.03)


def test_batches_repeat_and_differ_between_epochs_and_from_each_other(packed):
    first, again = ([*data(packed, mixup=0.5).train_batches(3)] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.mixed.labels, other.mixed.labels)
    shares = {float(batch.mixed.share) for batch in first}
    assert len(shares) == len(first)
    assert shares.isdisjoint(float(b.mixed.share) for b in data(packed, mixup=0.5).train_batches(4))


def test_images_stay_unblended_without_mixup_and_in_evaluation(packed):
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
    with pytest.raises(
        UserError, match=r"mixup blends images of a batch, but the cache.*teacher_source=live"
    ):
        check(configure("experiment=digits_amtml", "data.mixup=0.2"))


@pytest.mark.parametrize(
    ("parts", "words"),
    [(["method=amtml_adapter", "loss=[ce,kd,adapter_nll]"], r"terms \['adapter_nll'\] read one label"),
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
