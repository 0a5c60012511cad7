"""CIFAR-10 and CIFAR-100 from the official Python archives, whose pickles are read but never run."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import UInt8

from amtml_pl.data.datasets.archive import ArchiveSource
from amtml_pl.data.datasets.pickled_arrays import read_pickled_arrays, text
from amtml_pl.errors import UserError
from amtml_pl.types import Split, SplitName

SIDE = 32
PIXELS = 3 * SIDE * SIDE


class _Cifar(ArchiveSource):
    official: ClassVar[str] = "https://www.cs.toronto.edu/~kriz"
    splits: tuple[SplitName, ...] = ("train", "test")
    batches: ClassVar[dict[str, tuple[str, ...]]]
    meta: ClassVar[str]
    label_key: ClassVar[str]
    names_key: ClassVar[str]
    num_classes: ClassVar[int]

    def read(self, split: SplitName) -> Split:
        """One split, in the order of its batches.

        Raises:
            UserError: the archive is damaged, a member is missing or not built like the official one, or
                a pickle asks for code.
        """
        files = self.files()
        wanted = (*self.batches[split], self.meta)
        content = {
            name: read_pickled_arrays(_content(file), f"{files.where}: {name}")
            for name, file in files.read(wanted)
        }
        batches = [self._batch(content[name], f"{files.where}: {name}") for name in self.batches[split]]
        images = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, SIDE, SIDE)
        labels = [label for _, some in batches for label in some]
        classes = self._classes(content[self.meta], f"{files.where}: {self.meta}")
        return Split(torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64), classes)

    def _batch(self, content: dict[str, Any], where: str) -> tuple[UInt8[np.ndarray, "n pixels"], list[int]]:
        pixels, labels = content.get("data"), content.get(self.label_key)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (PIXELS,):
            raise UserError(f"{where}: 'data' is {_got(pixels)}, expected uint8 (n, {PIXELS}).")
        if not isinstance(labels, list) or len(labels) != len(pixels):
            raise UserError(f"{where}: {self.label_key!r} is {_got(labels)}, expected {len(pixels)} labels.")
        wrong = [label for label in labels if not (isinstance(label, int) and 0 <= label < self.num_classes)]
        if wrong:
            got = wrong[0] if isinstance(wrong[0], int) else _got(wrong[0])
            raise UserError(f"{where}: label {got!s:.40}, expected 0 to {self.num_classes - 1}.")
        return pixels, labels

    def _classes(self, content: dict[str, Any], where: str) -> tuple[str, ...]:
        names = content.get(self.names_key)
        if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
            names = None
        if names is None or len(names) != self.num_classes:
            got = _got(content.get(self.names_key))
            raise UserError(f"{where}: {self.names_key!r} is {got}, expected {self.num_classes} class names.")
        return tuple(text(name) for name in names)


class Cifar10(_Cifar):
    """CIFAR-10: 50,000 + 10,000 colour images of 32×32 pixels in 10 classes.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky, 2009), which gives the checksum too.

    Args:
        folder: where ``cifar-10-python.tar.gz`` or ``cifar-10-batches-py`` lies, or is downloaded to.
        mirrors: http(s) folders that hold the archive; None for the official one, empty for no download.
    """

    archive = "cifar-10-python.tar.gz"
    unpacked = "cifar-10-batches-py"
    md5 = "c58f30108f718f92721af3b95e74349a"
    size = 170_498_071
    batches: ClassVar = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
    meta = "batches.meta"
    members = (*batches["train"], *batches["test"], meta)
    label_key = "labels"
    names_key = "label_names"
    num_classes = 10


class Cifar100(_Cifar):
    """CIFAR-100: 50,000 + 10,000 colour images of 32×32 pixels with their 100 fine labels.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky, 2009), which gives the checksum too.

    Args:
        folder: where ``cifar-100-python.tar.gz`` or ``cifar-100-python`` lies, or is downloaded to.
        mirrors: http(s) folders that hold the archive; None for the official one, empty for no download.
    """

    archive = "cifar-100-python.tar.gz"
    unpacked = "cifar-100-python"
    md5 = "eb9058c3a382ffc7106e4002c42a8d85"
    size = 169_001_437
    batches: ClassVar = {"train": ("train",), "test": ("test",)}
    meta = "meta"
    members = ("train", "test", "meta")
    label_key = "fine_labels"
    names_key = "fine_label_names"
    num_classes = 100


def _content(file: Path | BytesIO) -> bytes:
    return file.read_bytes() if isinstance(file, Path) else file.getvalue()


def _got(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape}"
    return f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
