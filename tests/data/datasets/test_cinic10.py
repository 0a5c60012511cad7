import tarfile
import zipfile

import pytest
import torch

from amtml_pl.data.datasets.cinic10 import Cinic10
from amtml_pl.data.datasets.files import ArchiveFiles
from amtml_pl.errors import UserError
from archives import CIFAR10_CLASSES, write_cinic10, write_tar


def test_the_archive_is_read_with_its_own_validation_split(tmp_path):
    write_cinic10(tmp_path, train_per_class=2, val_per_class=1, test_per_class=3)
    source = Cinic10(tmp_path)
    splits = {name: source.read(name) for name in source.splits}
    assert {name: len(split) for name, split in splits.items()} == {"train": 20, "val": 10, "test": 30}
    assert splits["val"].classes == CIFAR10_CLASSES
    assert splits["val"].labels.tolist() == list(range(10))


@pytest.mark.parametrize("place", [".", "CINIC-10"])
def test_the_unpacked_folders_give_what_the_archive_gives(tmp_path, place):
    archive = write_cinic10(tmp_path / "archive")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked" / place, filter="data")
    from_archive, unpacked = Cinic10(archive.parent), Cinic10(tmp_path / "unpacked")
    for split in ("train", "val", "test"):
        assert torch.equal(from_archive.read(split).images, unpacked.read(split).images)
        assert torch.equal(from_archive.read(split).labels, unpacked.read(split).labels)


@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_what_an_archiver_adds_is_no_class_and_no_image(tmp_path, kind):
    names = (
        "train/cat/0.png", "train/cat/.AppleDouble/0.png", "train/cat/._0.png", "train/cat/Thumbs.db",
        "train/__MACOSX/cat/0.png", "train/@eaDir/0.png", "__MACOSX/train/dog/0.png",
    )  # fmt: skip
    members = dict.fromkeys(names, b"x")
    archive = tmp_path / f"images.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for name, content in members.items():
                file.writestr(name, content)
    else:
        write_tar(archive, ".", members)
    files = ArchiveFiles(archive, "images")
    assert files.folders("train") == ["cat"]
    assert files.names("train") == ["train/cat/0.png"]


def test_reading_the_archive_leaves_nothing_on_disk(tmp_path):
    archive = write_cinic10(tmp_path / "data")
    write_tar(tmp_path / "evil" / archive.name, "..", {"train/cat/0.png": b"", "outside.txt": b"out"})
    Cinic10(archive.parent).read("test")
    with pytest.raises(UserError):
        Cinic10(tmp_path / "evil").read("train")
    assert sorted(file.name for file in tmp_path.rglob("*")) == [
        "CINIC-10.tar.gz",
        "CINIC-10.tar.gz",
        "data",
        "evil",
    ]
