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
from amtml_pl.data.datasets.image_folder import SUFFIXES, is_image, read_images
from amtml_pl.errors import UserError

BATCH = 256


def named_images(words: Sequence[str]) -> list[Path]:
    """Return the image files that words name; a UserError if a word has none."""
    found: dict[Path, None] = {}
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            files = [path / name for name in FolderFiles(path).names(".") if is_image(name)]
        elif path.is_file():
            files = [path]
        else:
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
            files = [Path(match) for match in matches if is_image(match) and Path(match).is_file()]
        if not files:
            raise UserError(
                f"images={word!r} matches no image file (expected {', '.join(sorted(SUFFIXES))}). "
                f"The current folder is {Path.cwd()}.",
                fix="images=FOLDER, or a pattern in quotes: images='photos/*.jpg'",
            )
        found.update(dict.fromkeys(files))
    return [*found]


def read_batches(files: Sequence[Path], image_size: int) -> Iterator[Float[Tensor, "B 3 S S"]]:
    """Yield batches of images in [0, 1], scaled and cropped as in `ImageFolder`."""
    samples = [(str(file), 0) for file in files]
    stored = read_images(FolderFiles(Path.cwd()), samples, (), image_size, title="reading images")
    for images in torch.split(stored.images, BATCH):
        yield as_floats(images)
