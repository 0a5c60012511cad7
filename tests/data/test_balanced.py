"""Sampling for classes of unequal size."""

from itertools import chain
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.data.balanced import balanced_order
from amtml_pl.data.counter_rng import random_bits
from amtml_pl.data.packing import PackedDataset
from amtml_pl.types import Split
from recorded_batches import CLASSES, module

IMAGES = torch.arange(90 * 3 * 64).reshape(90, 3, 8, 8).remainder(251).to(torch.uint8)
LONG_TAIL = Split(IMAGES, torch.tensor([0] * 70 + [1] * 16 + [2] * 4), CLASSES)
UNEQUAL = PackedDataset(Path("packed"), "digest", CLASSES, {"train": LONG_TAIL, "test": LONG_TAIL})


def unequal(**arguments):
    return module(UNEQUAL, **{"val_size": 0, "balanced": True, "views": 3} | arguments)


def shares(data, epoch, world_size):
    return [[*data.train_batches(epoch, rank, world_size)] for rank in range(world_size)]


def drawn(data, epoch=0):
    return [*chain.from_iterable(batch.index.tolist() for batch in data.train_batches(epoch))]


@settings(max_examples=50)
@given(counts=st.lists(st.integers(0, 40), min_size=2, max_size=8).filter(any), seed=st.integers(0, 2**40))
def test_classes_and_the_images_of_a_class_are_drawn_equally_often(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)[::-1].copy()
    order = balanced_order(labels, random_bits(seed, 0))
    per_image = np.bincount(order, minlength=len(labels))
    per_class = [per_image[labels == c] for c in range(len(counts)) if counts[c]]
    assert len(order) == len(labels)
    assert max(map(sum, per_class)) - min(map(sum, per_class)) <= 1
    assert all(of.max() - of.min() <= 1 for of in per_class)


def test_an_epoch_draws_every_class_30_times_and_the_draws_change_with_epoch_and_seed():
    first = drawn(unequal())
    labels = LONG_TAIL.labels[first]
    assert labels.bincount().tolist() == [30, 30, 30]
    assert 0 < labels[:45].bincount(minlength=3).min() < 30  # not class after class
    assert first == drawn(unequal()) != drawn(unequal(), epoch=1)
    assert first != drawn(unequal(order_seed=1))
    seen = {*chain.from_iterable(drawn(unequal(), epoch) for epoch in range(20))}
    assert seen == {*range(90)}  # no image of the large class is left out for ever


def test_ranks_and_workers_change_no_sample():
    alone = [batch.index for batch in unequal().train_batches(2)]
    for world_size in (2, 3):
        together = shares(unequal(num_workers=1), 2, world_size)
        for step, batch in enumerate(alone):
            shared = torch.empty_like(batch)
            for rank in range(world_size):
                shared[rank::world_size] = together[rank][step].index
            assert torch.equal(shared, batch)


def test_every_draw_of_an_image_has_the_view_of_the_epoch_which_the_cache_holds():
    data = unequal()
    for epoch in range(4):
        for batch in data.train_batches(epoch):
            assert batch.view == 1 + epoch % 3
            stored = LONG_TAIL.images[batch.index]
            assert torch.equal(batch.images, data.augment(stored, batch.index, batch.view))
            assert torch.equal(batch.labels, LONG_TAIL.labels[batch.index])


def test_a_resumed_epoch_continues_with_the_next_batch():
    whole = [batch.index.tolist() for batch in unequal().train_batches(1)]
    assert [batch.index.tolist() for batch in unequal().train_batches(1, first=1)] == whole[1:]


def test_the_images_of_every_class_are_counted_in_the_training_split():
    assert unequal().class_counts().tolist() == [70, 16, 4]
    assert unequal(classes=[0, 2]).class_counts().tolist() == [70, 0, 4]
