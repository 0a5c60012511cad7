"""Read a tree with one folder of images per class, and decode image files."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.progress import track

from amtml_pl.data.datasets.files import Files, FolderFiles, tree_signature
from amtml_pl.errors import UserError
from amtml_pl.system.console import Terminal, is_watched
from amtml_pl.types import Split, SplitName, counted_kinds

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"})
CHUNK_IMAGES = 256
MEMORY_BYTES = 256 << 20

FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM")  # of these suffixes
# By default Pillow tries all its formats, for any file name; some of them are programs (EPS).
OPENED = (*FORMATS, "GIF")  # web pages have GIF files with the suffix of another format

ImageFile = tuple[str, Path | BytesIO]


class ImageFolder:
    """A user's own images: ``<folder>/<subfolder of the split>/<class>/.../<image>``.

    Classes are the sorted folder names, the same in every split. An image of another size is scaled
    (bilinear, antialiased) until its shorter side fits, and its centre is cut out. Transparency is
    dropped and an EXIF rotation is not applied, as in torchvision.

    Args:
        folder: the top of the tree.
        image_size: height and width of the packed images in pixels.
        splits: the subfolder of ``train``, of ``test`` and, where there is one, of ``val``; None for
            ``train`` if the images are only for evaluation.

    Raises:
        UserError: ``splits`` lacks train or test, has an unknown name, or names one folder twice.
    """

    def __init__(
        self, folder: str | Path, image_size: int, splits: Mapping[str, str | None] | None = None
    ) -> None:
        self.folder = Path(folder).expanduser()
        self.image_size = image_size
        given = {"train": "train", "test": "test"} if splits is None else dict(splits)
        self._subfolders = {split: place for split, place in given.items() if place is not None}
        self.splits: tuple[SplitName, ...] = tuple(s for s in get_args(SplitName) if s in self._subfolders)
        if {*given} - {"val"} != {"train", "test"} or None in (given["test"], given.get("val", "")):
            raise UserError(
                f"The image folder {self.folder} has wrong splits (got {', '.join(self._subfolders)}, "
                "expected train, test and optionally val).",
                fix="'dataset.source.splits={train: SUBFOLDER, test: SUBFOLDER}'",
            )
        if len({*self._subfolders.values()}) < len(self._subfolders):
            raise UserError(
                f"Two splits of {self.folder} have the same subfolder (got {self._subfolders}).",
                fix="'dataset.source.splits={train: SUBFOLDER, test: OTHER_SUBFOLDER}'",
            )

    def missing(self) -> str | None:
        """Return what is missing and where it was searched; None if nothing is."""
        paths = {split: self.folder.absolute() / sub for split, sub in self._subfolders.items()}
        absent = [f"{path} (split {split})" for split, path in paths.items() if not path.is_dir()]
        return f"The image data set lacks the folders {', '.join(absent)}." if absent else None

    def fetch(self) -> None:
        """Raise a UserError for missing folders, as nothing can be downloaded."""
        if missing := self.missing():
            raise UserError(
                missing,
                fix="put one folder of images per class there, or set the subfolders: "
                "'dataset.source.splits={train: SUBFOLDER, test: SUBFOLDER}'",
            )

    def download_bytes(self) -> int | None:
        """Return None: nothing can be downloaded."""
        return None

    def identity(self) -> dict[str, Any]:
        """Return what determines the pixels, as JSON."""
        place = {"folder": str(self.folder.resolve()), "splits": self._subfolders}
        return {"source": "ImageFolder", "image_size": self.image_size, **place}

    def signature(self) -> str | None:
        """Return a cheap identity of the local raw data; None if there is none."""
        return None if self.missing() else tree_signature(self.folder, self._subfolders.values())

    def read(self, split: SplitName) -> Split:
        """Return one split, class by class, images in the order of their names."""
        self.fetch()
        return read_class_folders(FolderFiles(self.folder), self._subfolders, split, self.image_size)


def read_class_folders(
    files: Files, subfolders: Mapping[str, str], split: SplitName, image_size: int
) -> Split:
    """Return one split of a tree with class folders; an empty one is a UserError."""
    classes = {name: files.folders(subfolder) for name, subfolder in subfolders.items()}
    everywhere = sorted({name for names in classes.values() for name in names})
    for name, names in classes.items():
        if absent := [label for label in everywhere if label not in names]:
            raise UserError(
                f"The {name} split in {files.where / subfolders[name]} lacks classes of another split: "
                f"{', '.join(absent)}.",
                fix="add a folder of images for each of these classes",
            )
    if not everywhere:
        raise UserError(f"The folder {files.where / subfolders[split]} has no subfolders of classes.")
    samples = []
    left_out: Counter[str] = Counter()
    for label, name in enumerate(everywhere):
        names = files.names(f"{subfolders[split]}/{name}")
        images = [image for image in names if is_image(image)]
        others = Counter(PurePosixPath(other).suffix.lower() for other in names if not is_image(other))
        left_out += others
        if not images:
            raise UserError(
                f"The class folder {files.where / subfolders[split] / name} has no images (expected "
                f"{', '.join(sorted(SUFFIXES))}){f'; {counted_kinds(others)}' * bool(others)}.",
                fix="put images there, or delete the folder of this class in every split",
            )
        samples += [(image, label) for image in images]
    whole = read_images(files, samples, tuple(everywhere), image_size, title=f"reading {split}")
    return replace(whole, left_out=dict(left_out))


def is_image(name: str) -> bool:
    """Return True if a file has the suffix of an image."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def read_images(
    files: Files, samples: Sequence[tuple[str, int]], classes: tuple[str, ...], image_size: int, *, title: str
) -> Split:
    """Decode images on all cores, many into a temporary file; name unreadable ones."""
    pixels = _empty((len(samples), 3, image_size, image_size))
    rows = {name: row for row, (name, _) in enumerate(samples)}
    failures: list[str] = []

    def decode(file: ImageFile) -> None:
        name, content = file
        try:
            pixels[rows[name]] = _pixels(content, image_size).transpose(2, 0, 1)
        except Exception as error:  # Pillow raises anything on damaged files
            failures.append(f"{name} ({error})")

    console = Terminal(stderr=True)
    done = _decoded(files.read(rows), decode)
    for _ in track(done, title, total=len(samples), console=console, disable=not is_watched(console)):
        pass
    if failures:
        shown = "; ".join([*sorted(failures)[:5], "…"][: len(failures)])
        raise UserError(
            f"{len(failures)} of {len(samples)} images cannot be read (relative to {files.where}): {shown}.",
            fix="convert or remove these files, and repeat the command",
        )
    labels = torch.tensor([label for _, label in samples], dtype=torch.int64)
    return Split(torch.from_numpy(pixels), labels, classes)


def _decoded(files: Iterator[ImageFile], decode: Callable[[ImageFile], None]) -> Iterator[None]:
    """Decode a chunk of files in threads while the next one is read."""
    running: Iterator[None] = iter(())
    with ThreadPoolExecutor() as pool:  # Pillow releases the GIL
        while chunk := list(islice(files, CHUNK_IMAGES)):
            following = pool.map(decode, chunk)
            yield from running
            running = following
        yield from running


def _pixels(file: Path | BytesIO, image_size: int) -> UInt8[np.ndarray, "S S 3"]:
    try:
        image = Image.open(file, formats=OPENED)
    except UnidentifiedImageError:
        raise ValueError(f"unknown format, expected {', '.join(FORMATS)}") from None
    with image:
        most = Image.MAX_IMAGE_PIXELS  # above it Pillow only warns, up to twice as many
        if most is not None and image.width * image.height > most:
            raise ValueError(f"{image.width} by {image.height} pixels, expected at most {most:,}")
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode}, expected 8 bits per channel")
        rgb = image.convert("RGB")
    if rgb.size != (image_size, image_size):
        rgb = ImageOps.fit(rgb, (image_size, image_size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _empty(shape: tuple[int, ...]) -> UInt8[np.ndarray, "N 3 S S"]:
    size = math.prod(shape)
    if size <= MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if free < size:
            raise UserError(
                f"The folder {tempfile.gettempdir()} has too little space to decode the images (got "
                f"{free / 1e9:.1f} GB free, expected {size / 1e9:.1f} GB).",
                fix="set TMPDIR to a folder on a larger disk: export TMPDIR=FOLDER",
            )
        return np.memmap(file, np.uint8, "w+", shape=shape)
