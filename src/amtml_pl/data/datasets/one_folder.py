"""Read one folder of images per class, without a test folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amtml_pl.data.counter_rng import permutation
from amtml_pl.data.datasets.files import FolderFiles, tree_signature
from amtml_pl.data.datasets.image_folder import is_image, read_class_folders
from amtml_pl.data.source import DatasetSource
from amtml_pl.errors import UserError
from amtml_pl.types import Split, SplitName

# Names of subfolders that hold a split in most tools, not a class.
SPLIT_NAMES = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}


class OneFolder(DatasetSource):
    """A user's own images without a test folder: ``<folder>/<class>/.../<image>``.

    The choice of the test images depends on the number of images in each class alone. Images are scaled and
    cropped as in `ImageFolder`.

    Args:
        folder: the top of the tree.
        image_size: height and width of the packed images in pixels.
        test_fraction: share of each class in the test split, in [0.01, 0.99]; at least one image.

    Raises:
        UserError: ``test_fraction`` is out of range.
    """

    splits: tuple[SplitName, ...] = ("train", "test")

    def __init__(self, folder: str | Path, image_size: int, test_fraction: float = 0.2) -> None:
        if not 0.01 <= test_fraction <= 0.99:
            raise UserError(
                f"dataset.source.test_fraction is out of range (got {test_fraction}, expected 0.01 to 0.99).",
                fix="dataset.source.test_fraction=0.2",
            )
        self.folder = Path(folder).expanduser()
        self.image_size = image_size
        self.test_fraction = test_fraction

    def missing(self) -> str | None:
        """Return what is missing; None if nothing is."""
        found = self.folder.is_dir()
        return None if found else f"The image data set lacks the folder {self.folder.absolute()}."

    def fetch(self) -> None:
        """Raise a UserError for a missing folder, as nothing can be downloaded."""
        if missing := self.missing():
            raise UserError(missing, fix="put one folder of images per class there")

    def download_bytes(self) -> int | None:
        """Return None: nothing can be downloaded."""
        return None

    def identity(self) -> dict[str, Any]:
        """Return what determines the pixels, as JSON."""
        place = {"folder": str(self.folder.resolve()), "test_fraction": self.test_fraction}
        return {"source": "OneFolder", "image_size": self.image_size, **place}

    def signature(self) -> str | None:
        """Return a cheap identity of the local raw data; None if there is none."""
        return None if self.missing() else tree_signature(self.folder, ["."])

    def read(self, split: SplitName) -> Split:
        """Return one split, class by class, images in the order of their names."""
        self.fetch()
        refuse_split_folders(self.folder)
        files = PartOfFolder(self.folder, split, self.test_fraction)
        return read_class_folders(files, {split: "."}, split, self.image_size)


def refuse_split_folders(folder: Path) -> None:
    """Raise a UserError if all folders of classes have names of splits."""
    names = FolderFiles(folder).folders(".")
    if not names or any(name.lower() not in SPLIT_NAMES for name in names):
        return
    found = {SPLIT_NAMES[name.lower()]: name for name in names}
    test = found.get("test", found.get("val"))
    if "train" not in found or test is None:
        fix = f"\"dataset.source.folder='{folder.absolute() / names[0]}'\""
    else:
        fix = f"dataset=image_folder dataset.num_classes={len(FolderFiles(folder).folders(found['train']))}"
        if (found["train"], test) != ("train", "test"):
            fix += f" 'dataset.source.splits={{train: {found['train']}, test: {test}}}'"
        if "test" in found and "val" in found:
            fix += f" +dataset.source.splits.val={found['val']}"
    raise UserError(
        f"The folder {folder.absolute()} has folders of splits (got {', '.join(names)}, expected one folder "
        "per class).",
        fix=fix,
    )


class PartOfFolder(FolderFiles):
    """The files of one split; files that are not images belong to ``train``."""

    def __init__(self, folder: Path, split: SplitName, test_fraction: float) -> None:
        super().__init__(folder)
        self.split, self.test_fraction = split, test_fraction

    def names(self, under: str) -> list[str]:
        """Return the sorted names of the split's files below a class folder."""
        names = super().names(under)
        images = [name for name in names if is_image(name)]
        if len(images) == 1:
            raise UserError(
                f"The class folder {self.where / under} has too few images for two splits (got 1, expected 2 "
                "or more).",
                fix="add images, or delete the folder",
            )
        count = min(max(1, round(self.test_fraction * len(images))), len(images) - 1)
        test = {images[place] for place in permutation(len(images), 0)[: max(count, 0)]}
        return [name for name in names if (name in test) == (self.split == "test")]
