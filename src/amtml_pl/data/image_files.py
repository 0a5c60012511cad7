"""Find image files named by the user, and read their pixels."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.data.augment import as_floats
from amtml_pl.data.datasets.files import FolderFiles
from amtml_pl.data.datasets.image_folder import SUFFIXES, image_names, read_images
from amtml_pl.errors import UserError

BATCH = 256


def named_images(words: Sequence[str]) -> list[Path]:
    """Return the image files that words name; a word without an image is a UserError."""
    found: dict[Path, None] = {}
    for word in words:
        files = [*files_of(word)]
        if not files:
            kinds = ", ".join(sorted(SUFFIXES))
            path = Path(word).expanduser()
            lacking = f"no image in the folder {word!r}" if path.is_dir() else f"no image {word!r}"
            seen = "" if path.is_absolute() else f", seen from {Path.cwd()}"
            raise UserError(
                f"There is {lacking}{seen}; known are {kinds}.",
                fix="images=FOLDER, images=[FILE,FILE] or images='PATTERN', in quotes",
            )
        found.update(dict.fromkeys(files))
    return [*found]


def files_of(word: str) -> Iterator[Path]:
    """Yield the image files that a word names: a file, a folder or a pattern."""
    path = Path(word).expanduser()
    if path.is_dir():
        yield from (path / name for name in image_names(FolderFiles(path), "."))
    elif path.is_file():
        yield path
    else:
        matches = (Path(match) for match in sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207
        yield from (match for match in matches if match.suffix.lower() in SUFFIXES and match.is_file())


def read_batches(files: Sequence[Path], image_size: int) -> Iterator[Float[Tensor, "B 3 S S"]]:
    """Yield batches of images in [0, 1], scaled and cropped as in `ImageFolder`."""
    samples = [(str(file), 0) for file in files]
    stored = read_images(FolderFiles(Path.cwd()), samples, (), image_size, title="reading images")
    for images in torch.split(stored.images, BATCH):
        yield as_floats(images)
