import re
from itertools import chain
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from amtml_pl.data.augment import Augmentation, CropFlip, Cutout
from amtml_pl.data.packing import PackedDataset
from amtml_pl.errors import UserError
from recorded_batches import CLASSES, PACKED, Recorder, module, split, trainer

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"batch_size": 0}, "batch_size=0 .*expected 1"), ({"val_size": float("nan")}, "val_size=nan"),
     ({"views": -2}, "views=-2 .*1 to 18, the different"), ({"views": 19}, "views=19"),
     ({"eval_batch_size": 0}, "data.eval_batch_size=0"), ({"num_workers": -1}, "data.num_workers=-1"),
     ({"mixup": -1.0}, "data.mixup=-1.0 is out of range .expected 0")],
)  # fmt: skip
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        module(**arguments)


def order(data, epoch=0, rank=0, world_size=1):
    return [batch.index.tolist() for batch in data.train_batches(epoch, rank, world_size)]


def pixels(batches):
    """Image and label of every sample, by index."""
    rows = (zip(batch.index, batch.images, batch.labels, strict=True) for batch in batches)
    return {int(i): (image, int(label)) for batch in rows for i, image, label in batch}


def same_pixels(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(image, second[i][0]) and label == second[i][1] for i, (image, label) in first.items()
    )


@settings(max_examples=20)
@given(seed=st.integers(-5, 2**40), epoch=st.integers(0, 400), B=st.integers(1, 200), N=st.integers(3, 120))
def test_an_epoch_has_every_training_image_once_in_batches_of_two_or_more(seed, epoch, B, N):
    batches = order(module(order_seed=seed, batch_size=B, train_size=N), epoch)
    assert sorted(chain.from_iterable(batches)) == list(range(N))
    assert all(len(batch) == B for batch in batches[:-2])
    assert all(2 <= len(batch) <= B + 1 for batch in batches) or B == 1


@settings(max_examples=20)
@given(world_size=st.integers(1, 8), B=st.integers(8, 64), N=st.integers(8, 120), epoch=st.integers(0, 5))
def test_the_sequence_of_samples_is_the_same_for_any_number_of_ranks(world_size, B, N, epoch):
    data = module(batch_size=B, train_size=N)
    if min(map(len, order(data, epoch))) < 2 * world_size > 2:
        with pytest.raises(UserError, match=f"batch is too small for {world_size} processes") as refused:
            order(data, epoch, 0, world_size)
        if fitting := re.match(r"data.batch_size=(\d+)", refused.value.fix):
            assert order(module(batch_size=int(fitting[1]), train_size=N), epoch, 0, world_size)
        return
    shares = [order(data, epoch, rank, world_size) for rank in range(world_size)]
    together = []
    for steps in zip(*shares, strict=True):  # strict: every rank makes the same number of steps
        assert max(map(len, steps)) - min(map(len, steps)) <= 1
        assert min(map(len, steps)) >= 2 or world_size == 1
        together += [step[i] for i in range(len(steps[0])) for step in steps if i < len(step)]
    assert together == list(chain.from_iterable(order(data, epoch)))


def test_the_order_differs_between_epochs_and_seeds():
    data = module()
    orders = [order(data, 0), order(data, 1), order(module(order_seed=1), 0)]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert order(data, 0) == orders[0]


def test_pixels_depend_on_neither_workers_nor_batch_size_nor_order():
    first, with_workers = pixels(module().train_batches(3)), module(num_workers=2)
    for other in (with_workers, module(batch_size=120), module(order_seed=9)):
        assert same_pixels(first, pixels(other.train_batches(3)))
    assert order(with_workers, 4) == order(module(), 4)


def test_epochs_use_the_views_in_turn():
    data = module(views=3)
    assert [data.train_view(epoch) for epoch in range(7)] == [1, 2, 3, 1, 2, 3, 1]
    first, second, again = (pixels(data.train_batches(epoch)) for epoch in (0, 1, 3))
    assert same_pixels(first, again)
    assert not same_pixels(first, second)
    assert module().train_view(18) == 1  # all views are the distinct ones, or a new one in every epoch
    assert module(operations=[]).train_view(7) == 1
    assert module(operations=[CropFlip(), Cutout(2)]).train_view(1000) == 1001


def test_a_batch_holds_the_view_that_the_augmentation_gives_of_the_stored_images():
    data = module()
    batch = next(iter(data.train_batches(2)))
    stored = data.split("train").stored.images[data.split("train").rows[batch.index]]
    assert torch.equal(batch.images, data.augment(stored, batch.index, 3))
    assert torch.equal(batch.labels, data.split("train").rows[batch.index] % 3)
    assert (batch.view, batch.split) == (3, "train")


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 10), (2, 10), (7, 2)])
def test_evaluation_has_every_image_once_over_all_ranks_unaugmented(world_size, batch_size):
    data = module(eval_batch_size=batch_size)
    for name, rows in (("val", data.split("val")), ("test", data.split("test"))):
        shares = [[*data.eval_batches(rows, rank, world_size)] for rank in range(world_size)]
        assert all(shares)  # also with more ranks than images in a batch
        batches = [*chain.from_iterable(shares)]
        index = torch.cat([batch.index for batch in batches])
        assert sorted(index.tolist()) == list(range(len(rows)))
        assert world_size > 1 or index.tolist() == sorted(index.tolist())
        assert all(batch.view == 0 and batch.split == name for batch in batches)
        found = pixels(batches)
        assert all(torch.equal(found[i][0], rows.stored.images[rows.rows[i]] / 255) for i in range(len(rows)))


def test_the_shipped_configuration_matches_the_constructor():
    config = OmegaConf.create({"data": OmegaConf.load(CONF / "data" / "default.yaml")})
    make = instantiate(config.data, _convert_="all", _partial_=True)
    data = make(packed=PACKED, order_seed=1, augment=Augmentation([CropFlip()]))
    assert (data.num_classes, data.classes, data.digest) == (3, CLASSES, "digest")
    assert data.sizes == {"train": 135, "val": 15, "test": 31}


def test_a_resumed_run_has_the_batches_of_an_uninterrupted_one(tmp_path):
    def fitted(trainer, **options):
        learner = Recorder()
        trainer.fit(learner, datamodule=module(num_workers=1, train_size=40), **options)
        return learner.seen

    whole = fitted(trainer(tmp_path, 2))
    first = trainer(tmp_path, 1)
    half = fitted(first)
    first.save_checkpoint(tmp_path / "half.ckpt")
    assert whole == half + fitted(trainer(tmp_path, 2), ckpt_path=tmp_path / "half.ckpt")
    assert [view for _, view, _ in whole] == [1, 1, 2, 2]
    assert whole[0][2] != whole[2][2]


def test_a_missing_validation_split_has_a_fix_for_each_command():
    with pytest.raises(UserError) as error:
        module(val_size=0).split("val")
    assert error.value.what == "The run has no validation split (got data.val_size=0)."
    assert error.value.fix == "pass split=test, or to amtml_pl.cache 'splits=[test]'"


def test_a_missing_test_split_is_named_when_it_is_loaded():
    data = module(PackedDataset(Path("packed"), "digest", CLASSES, {"train": split(60)}), val_size=0.2)
    assert data.sizes == {"train": 48, "val": 12}
    with pytest.raises(UserError, match=r"packed has no test split \(got \['train'\]\)"):
        data.test_dataloader()
