"""Look at a user's folder of images before anything is read: classes, splits, sizes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from PIL import Image

from amtml_pl.data.datasets.files import FolderFiles
from amtml_pl.data.datasets.image_folder import OPENED, SUFFIXES, is_image
from amtml_pl.errors import UserError

LEAST_IMAGES = 5  # per class: for training, validation and test
MEASURED_IMAGES = 60  # whose size is read
LAYOUT = "put the images into one folder per class: FOLDER/CLASS/*.png"


@dataclass(frozen=True)
class FolderSurvey:
    """A folder with one folder of images per class.

    Attributes:
        folder: absolute.
        splits: subfolders by split; empty for a folder of classes, without a test folder.
        classes: the K folder names, sorted.
        images: training images, with those that validation or test take from them.
        side: the median of the images' shorter sides in pixels; 0 if none can be read.
    """

    folder: Path
    splits: Mapping[str, str]
    classes: tuple[str, ...]
    images: int
    side: int


def survey_folder(folder: Path) -> FolderSurvey:
    """Return what a folder holds.

    Raises:
        UserError: if it is missing, has fewer than two classes, a class has fewer than five images, or there
            is a folder ``train`` without a folder ``test``.
    """
    folder = folder.expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"images={folder} is not a folder. The current folder is {Path.cwd()}.", fix=LAYOUT)
    splits = {name: name for name in ("train", "val", "test") if (folder / name).is_dir()}
    if "train" not in splits:
        splits = {}
    elif "test" not in splits:
        raise UserError(
            f"The folder {folder} has a folder train, but none for the test (expected train and test).",
            fix=f"add {folder / 'test'}, or pass {folder / 'train'}, of which a fifth is held out",
        )
    files, top = FolderFiles(folder), splits.get("train", ".")
    classes = {name: list(filter(is_image, files.names(f"{top}/{name}"))) for name in files.folders(top)}
    if len(classes) < 2:
        loose = sum(is_image(name) for name in files.names(top))
        found = f"{len(classes)} {'class' if len(classes) == 1 else 'classes'} with {loose} images"
        what = f"The folder {folder / top} has too few folders of classes (got {found}, expected 2 or more)."
        raise UserError(what, fix=LAYOUT)
    if few := {name: len(images) for name, images in classes.items() if len(images) < LEAST_IMAGES}:
        listed = ", ".join(f"{name}: {count}" for name, count in few.items())
        raise UserError(
            f"The folder {folder / top} has classes with too few images (got {listed}; expected "
            f"{LEAST_IMAGES} or more of {', '.join(sorted(SUFFIXES))}).",
            fix="add images to these classes, or delete their folders",
        )
    images = [folder / name for names in classes.values() for name in names]
    step = max(1, len(images) // MEASURED_IMAGES)
    return FolderSurvey(folder, splits, tuple(classes), len(images), typical_side(images[::step]))


def typical_side(images: list[Path]) -> int:
    """Return the median of the shorter sides in pixels, of images that can be read."""
    sides = []
    for file in images:
        with suppress(Exception), Image.open(file, formats=OPENED) as image:  # Pillow raises anything
            sides.append(min(image.size))
    return round(median(sides)) if sides else 0
