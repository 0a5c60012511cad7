"""Tiny ImageNet: 200 classes of ImageNet at 64×64 pixels."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from amtml_pl.data.datasets.archive import ArchiveSource
from amtml_pl.data.datasets.files import Files
from amtml_pl.data.datasets.image_folder import read_class_folders, read_images
from amtml_pl.errors import UserError
from amtml_pl.types import Split, SplitName

IMAGE_SIZE = 64
ANNOTATIONS = "val/val_annotations.txt"


class TinyImageNet(ArchiveSource):
    """Tiny ImageNet: 100,000 training and 10,000 test images of 64×64 pixels in 200 classes.

    Our test split is the official *validation* split, because the labels of the official test split are
    not public; accuracies compare with what others report as validation accuracy. Classes are in the
    order of their WordNet ids. Grey images become colour images. Source: http://cs231n.stanford.edu
    (Le and Yang, 2015). The checksum is the one that several independent loaders carry; the source
    itself publishes none.
    """

    archive = "tiny-imagenet-200.zip"
    unpacked = "tiny-imagenet-200"
    size = 248_100_043
    splits: tuple[SplitName, ...] = ("train", "test")

    def read(self, split: SplitName) -> Split:
        """Return the training images by class, or the validation images by name."""
        files = self.files()
        if split == "train":
            train = read_class_folders(files, {"train": "train"}, "train", IMAGE_SIZE)
            return replace(train, classes=_class_names(files, train.classes), left_out={})  # their boxes
        ids = files.folders("train")
        classes = _class_names(files, tuple(ids))
        return read_images(files, _annotated(files, ids), classes, IMAGE_SIZE, title="reading test")


def _annotated(files: Files, ids: list[str]) -> list[tuple[str, int]]:
    """Return the name and label of each validation image, in the order of the names."""
    labels = {name: label for label, name in enumerate(ids)}
    rows = [line.split("\t") for line in _lines(files, ANNOTATIONS)]
    try:
        return sorted((f"val/images/{row[0]}", labels[row[1]]) for row in rows)
    except LookupError as error:
        raise UserError(f"{files.where / ANNOTATIONS} names a class that train lacks ({error}).") from error


def _class_names(files: Files, ids: tuple[str, ...]) -> tuple[str, ...]:
    """Return each id's first WordNet word, with the id if two classes share it."""
    words = dict(line.split("\t", 1) for line in _lines(files, "words.txt") if "\t" in line)
    names = [words.get(name, name).split(",")[0].strip() for name in ids]
    count = Counter(names)
    return tuple(word if count[word] == 1 else f"{word} ({i})" for word, i in zip(names, ids, strict=True))


def _lines(files: Files, name: str) -> list[str]:
    (_, file), *_ = files.read([name])
    content = file.read_bytes() if isinstance(file, Path) else file.getvalue()
    return content.decode("utf-8", errors="replace").splitlines()
