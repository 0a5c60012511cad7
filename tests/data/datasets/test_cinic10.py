from amtml_pl.data.datasets.cinic10 import Cinic10
from amtml_pl.data.datasets.files import ArchiveFiles
from amtml_pl.data.packing import pack
from archives import CIFAR10_CLASSES, checksums, write_cinic10, write_tar


def test_the_archive_is_read_with_its_own_validation_split_and_leaves_nothing_on_disk(tmp_path):
    archive = write_cinic10(tmp_path / "raw", train_per_class=2, val_per_class=1, test_per_class=3)
    packed = pack(Cinic10(tmp_path / "raw", [], **checksums(archive)), tmp_path / "packed")
    splits = packed.splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 20, "val": 10, "test": 30}
    assert splits["val"].classes == CIFAR10_CLASSES
    assert splits["val"].labels.tolist() == list(range(10))
    assert [*(tmp_path / "raw").iterdir()] == [archive]


def test_files_that_an_archiver_adds_are_neither_class_nor_image(tmp_path):
    names = (
        "train/cat/0.png", "train/cat/.AppleDouble/0.png", "train/cat/._0.png", "train/cat/Thumbs.db",
        "train/__MACOSX/cat/0.png", "train/@eaDir/0.png", "__MACOSX/train/dog/0.png",
    )  # fmt: skip
    files = ArchiveFiles(write_tar(tmp_path / "images.tar.gz", ".", dict.fromkeys(names, b"x")), "images")
    assert files.folders("train") == ["cat"]
    assert files.names("train") == ["train/cat/0.png"]
