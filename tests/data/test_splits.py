from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.data.packing import PackedDataset
from amtml_pl.data.splits import disjoint_splits
from amtml_pl.errors import UserError
from amtml_pl.types import Split


def packed(labels, *, val=0, test=4, classes=("ant", "bee", "cat")):
    """Images whose pixels are worth nothing; only the labels matter here."""

    def split(of):
        return Split(torch.zeros(len(of), 3, 2, 2, dtype=torch.uint8), torch.tensor(of), classes)

    splits = {"train": split(labels)}
    if val:
        splits["val"] = split([0, 1, 2] * val)
    if test:
        splits["test"] = split([0] * test)
    return PackedDataset(Path("packed"), "digest", classes, splits)


def labelled(min_size):
    """Labels in any order and proportion, with at least one of every class."""
    some = st.lists(st.integers(0, 2), min_size=min_size - 3, max_size=200)
    return some.flatmap(lambda labels: st.permutations([0, 1, 2, *labels]))


@settings(max_examples=40)
@given(labels=labelled(7), seed=st.integers(-3, 2**40), data=st.data())
def test_training_and_validation_share_no_image_and_lose_none(labels, seed, data):
    size = data.draw(st.integers(3, len(labels) - 3))
    splits = disjoint_splits(packed(labels), size, None, seed)
    rows = torch.cat([splits["train"].rows, splits["val"].rows])
    assert len(splits["val"]) == size
    assert sorted(rows.tolist()) == list(range(len(labels)))
    assert len(splits["test"]) == 4


@settings(max_examples=40)
@given(labels=labelled(20), fraction=st.floats(0.2, 0.8))
def test_every_class_is_split_in_proportion(labels, fraction):
    splits = disjoint_splits(packed(labels), fraction, None, 0)
    taken = torch.tensor(labels)[splits["val"].rows]
    share = len(taken) / len(labels)
    for label in range(3):
        difference = abs(int((taken == label).sum()) - share * labels.count(label))
        assert difference <= 3  # rounding, and one image that is given or spared


@settings(max_examples=40)
@given(labels=labelled(7), seed=st.integers(0, 100), data=st.data(), train_size=st.sampled_from([None, 3]))
def test_every_class_is_trained_on_and_validated_where_it_can_be(labels, seed, data, train_size):
    size = data.draw(st.integers(3, len(labels) - 3))
    splits = disjoint_splits(packed(labels), size, train_size, seed)
    trained, validated = (torch.tensor(labels)[splits[name].rows].tolist() for name in ("train", "val"))
    assert {*trained} == {0, 1, 2}
    assert train_size is None or len(trained) == 3
    for label in range(3):
        assert (label in validated) == (labels.count(label) > 1)


@settings(max_examples=40)
@given(labels=labelled(8), seed=st.integers(0, 100), data=st.data())
def test_a_larger_validation_split_holds_every_smaller_one(labels, seed, data):
    sizes = sorted(data.draw(st.integers(3, len(labels) - 3)) for _ in range(2))
    few, many = (set(disjoint_splits(packed(labels), n, None, seed)["val"].rows.tolist()) for n in sizes)
    assert few <= many


@settings(max_examples=40)
@given(seed=st.integers(0, 100), small=st.integers(3, 60), large=st.integers(60, 120))
def test_a_larger_training_subset_holds_every_smaller_one_and_spares_validation(seed, small, large):
    data = packed([0, 1, 2] * 50)
    few = disjoint_splits(data, 30, small, seed)
    many = disjoint_splits(data, 30, large, seed)
    assert len(few["train"]) == small
    assert set(few["train"].rows.tolist()) <= set(many["train"].rows.tolist())
    assert torch.equal(few["val"].rows, many["val"].rows)
    assert not set(many["train"].rows.tolist()) & set(many["val"].rows.tolist())


def test_the_seed_alone_decides_the_choice():
    data = packed([0, 1, 2] * 50)
    first, again, other = (disjoint_splits(data, 0.2, 60, seed) for seed in (0, 0, 1))
    for name in ("train", "val"):
        assert torch.equal(first[name].rows, again[name].rows)
        assert not torch.equal(first[name].rows, other[name].rows)


def test_a_packed_validation_split_is_used_as_it_is():
    splits = disjoint_splits(packed([0, 1, 2] * 5, val=2), 0.1, None, 0)
    assert (len(splits["train"]), len(splits["val"])) == (15, 6)


@pytest.mark.parametrize("size", [0, 0.0])
def test_without_a_validation_size_all_images_train_and_a_packed_split_stays(size):
    splits = disjoint_splits(packed([0, 1, 2] * 5), size, None, 0)
    assert list(splits) == ["train", "test"]
    assert splits["train"].rows.tolist() == [*range(15)]
    assert len(disjoint_splits(packed([0, 1, 2] * 5, val=2), size, None, 0)["val"]) == 6


@pytest.mark.parametrize(
    ("val_size", "train_size", "text"),
    [
        (28, None, r"data.val_size=28 selects too many images .got 28, expected 3 to 27, at least one"),
        (0.01, None, "data.val_size=0.01 selects too few images .got 0,"),
        (1.0, None, "data.val_size=1.0 selects too many images .got 30,"),
        (10, 21, "data.train_size=21 selects too many images .got 21, expected 3 to 20, at least one"),
        (10, 2, "data.train_size=2 selects too few images .got 2,"),
    ],
)
def test_sizes_that_the_data_cannot_give_are_refused(val_size, train_size, text):
    with pytest.raises(UserError, match=text):
        disjoint_splits(packed([0, 1, 2] * 10), val_size, train_size, 0)


@pytest.mark.parametrize(("train_size", "taken"), [(1, 3), (7, 7), (99, 20)])
def test_a_clipped_size_is_the_nearest_one_that_the_data_can_give(train_size, taken):
    splits = disjoint_splits(packed([0, 1, 2] * 10), 10, train_size, 0, clip_train_size=True)
    assert len(splits["train"]) == taken


def test_packed_data_without_training_images_is_refused():
    data = packed([0, 1, 2])
    only_test = PackedDataset(data.folder, data.digest, data.classes, {"test": data.splits["test"]})
    with pytest.raises(UserError, match=r"packed has no train split \(got \['test'\]\)"):
        disjoint_splits(only_test, 0.1, None, 0)


@settings(max_examples=40)
@given(labels=labelled(20), seed=st.integers(0, 100), train_size=st.sampled_from([None, 6]))
def test_some_classes_keep_their_images_of_every_split_and_their_labels(labels, seed, train_size):
    data = packed(labels, test=0)
    every, some = (disjoint_splits(data, 6, train_size, seed, classes) for classes in (None, [0, 2]))
    stored = torch.tensor(labels)
    for name, split in every.items():
        kept = [row for row in split.rows.tolist() if labels[row] != 1]
        assert some[name].rows.tolist() == kept
        assert {*stored[some[name].rows].tolist()} <= {0, 2}


@pytest.mark.parametrize(
    ("classes", "text"),
    [
        ([0, 3], r"data.classes=\[0, 3\] is wrong in the train split .*numbers from 0 to 2"),
        ([1], r"data.classes=\[1\] is wrong"),
        ([1, 1], r"data.classes=\[1, 1\] is wrong"),
        ([1, 2], r"data.classes=\[1, 2\] selects no image in the test split"),
    ],
)
def test_classes_without_images_are_refused(classes, text):
    with pytest.raises(UserError, match=text):
        disjoint_splits(packed([0, 1, 2] * 10), 6, None, 0, classes)
