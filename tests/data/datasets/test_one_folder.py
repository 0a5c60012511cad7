"""A folder of classes without a test folder is split into training and test images."""

import pytest
import torch

from amtml_pl.data.datasets.one_folder import OneFolder
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from archives import write_image_folder


@pytest.fixture
def folder(tmp_path):
    return write_image_folder(tmp_path / "all", per_class={".": 10})


def test_a_fifth_of_each_class_is_the_test_split_and_no_image_is_in_both(folder):
    train, test = (OneFolder(folder, 32).read(split) for split in ("train", "test"))
    assert train.classes == test.classes == ("cat", "dog", "owl")
    assert train.labels.bincount().tolist() == [8, 8, 8]
    assert test.labels.bincount().tolist() == [2, 2, 2]
    together = torch.cat([train.images, test.images]).flatten(1)
    assert len(together.unique(dim=0)) == 30


def test_each_split_is_the_same_in_every_run(folder):
    first, again = (OneFolder(folder, 32, 0.4).read("test").images for _ in range(2))
    assert torch.equal(first, again)


def test_other_files_are_counted_once_and_a_new_image_is_noticed(folder, tmp_path):
    (folder / "cat" / "notes.txt").write_text("a cat")
    packed = pack(OneFolder(folder, 32), tmp_path / "packed")
    assert dict(packed.left_out) == {".txt": 1}
    before = OneFolder(folder, 32).signature()
    (folder / "cat" / "0003.png").unlink()
    assert OneFolder(folder, 32).signature() != before


@pytest.mark.parametrize(
    ("count", "message"), [(0, "no images"), (1, "too few images for two splits .got 1")], ids=["none", "one"]
)
def test_a_class_with_too_few_images_is_refused(folder, count, message):
    (folder / "dodo").mkdir()
    for image in list((folder / "cat").iterdir())[:count]:
        image.rename(folder / "dodo" / image.name)
    with pytest.raises(UserError, match=f"dodo has {message}"):
        OneFolder(folder, 32).read("train")


def test_a_missing_folder_and_a_wrong_share_are_refused(tmp_path):
    with pytest.raises(UserError, match="lacks the folder"):
        OneFolder(tmp_path / "gone", 32).read("train")
    with pytest.raises(UserError, match=r"got 1.5, expected 0.01 to 0.99"):
        OneFolder(tmp_path, 32, 1.5)


@pytest.mark.parametrize(
    ("splits", "fix"),
    [
        (("test", "train"), "dataset=image_folder dataset.num_classes=3"),
        (
            ("test", "train", "valid"),
            "dataset=image_folder dataset.num_classes=3 +dataset.source.splits.val=valid",
        ),
        (
            ("Train", "val"),
            "dataset=image_folder dataset.num_classes=3 'dataset.source.splits={train: Train, test: val}'",
        ),
    ],
    ids=["train-test", "with-val", "without-test"],
)
def test_folders_of_splits_are_not_classes(tmp_path, splits, fix):
    folder = write_image_folder(tmp_path / "all", per_class=dict.fromkeys(splits, 4))
    with pytest.raises(
        UserError, match=rf"got {', '.join(splits)}, expected one folder per class"
    ) as refused:
        OneFolder(folder, 32).read("train")
    assert refused.value.fix == fix


def test_a_folder_of_one_split_is_entered(tmp_path):
    folder = write_image_folder(tmp_path / "all", per_class={"train": 4})
    with pytest.raises(UserError) as refused:
        OneFolder(folder, 32).read("train")
    assert refused.value.fix == f"\"dataset.source.folder='{folder / 'train'}'\""
    (folder / "bus").mkdir()
    (folder / "bus" / "one.png").write_bytes((folder / "train" / "cat" / "0000.png").read_bytes())
    with pytest.raises(UserError, match="bus has too few images"):  # beside another class, `train` is one
        OneFolder(folder, 32).read("train")
