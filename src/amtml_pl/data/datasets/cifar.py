"""CIFAR-10 and CIFAR-100 from the official Python archives."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from amtml_pl.data.datasets.archive import ArchiveSource
from amtml_pl.errors import UserError
from amtml_pl.types import Split, SplitName

NAMES_OF_ARRAYS = frozenset(
    {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
     ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
)  # fmt: skip


class _Cifar(ArchiveSource):
    splits: tuple[SplitName, ...] = ("train", "test")
    batches: ClassVar[dict[str, tuple[str, ...]]]
    meta: ClassVar[str]
    label_key: ClassVar[str]
    names_key: ClassVar[str]

    def read(self, split: SplitName) -> Split:
        """Return one split, in the order of its verified batches."""
        files = self.files()
        wanted = (*self.batches[split], self.meta)
        content = {name: read_batch(file, f"{name} in {files.where}") for name, file in files.read(wanted)}
        batches = [content[name] for name in self.batches[split]]
        images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32)
        labels = [label for batch in batches for label in batch[self.label_key]]
        classes = tuple(content[self.meta][self.names_key])
        return Split(torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64), classes)


class Cifar10(_Cifar):
    """CIFAR-10: 50,000 + 10,000 colour images of 32×32 pixels in 10 classes.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky, 2009), which gives the checksum of the
    archive; those of its files are torchvision's.
    """

    archive = "cifar-10-python.tar.gz"
    unpacked = "cifar-10-batches-py"
    size = 170_498_071
    batches: ClassVar = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
    meta = "batches.meta"
    label_key = "labels"
    names_key = "label_names"


class Cifar100(_Cifar):
    """CIFAR-100: 50,000 + 10,000 colour images of 32×32 pixels with their 100 fine labels.

    Source: https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky, 2009), which gives the checksum of the
    archive; those of its files are torchvision's.
    """

    archive = "cifar-100-python.tar.gz"
    unpacked = "cifar-100-python"
    size = 169_001_437
    batches: ClassVar = {"train": ("train",), "test": ("test",)}
    meta = "meta"
    label_key = "fine_labels"
    names_key = "fine_label_names"


def read_batch(file: Path | BytesIO, where: str) -> dict[str, Any]:
    """Unpickle a verified dictionary of arrays, lists and text; all else is a UserError."""
    content = file.read_bytes() if isinstance(file, Path) else file.getvalue()
    batch: dict[str, Any] = _ArrayUnpickler(BytesIO(content), where).load()
    return batch


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that accepts numpy's names for arrays only."""

    def __init__(self, file: BytesIO, where: str) -> None:
        super().__init__(file, encoding="latin1")  # the official files were written by Python 2
        self._where = where

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in NAMES_OF_ARRAYS:
            raise UserError(
                f"The file {self._where} is not safe to load: it calls {module:.80}.{name:.80}. Nothing was "
                "loaded.",
                fix="get the official archive, and remove your values of dataset.source.md5 and .members",
            )
        if name == "_reconstruct":  # numpy 2 warns of the module's old name
            return np.empty(0).__reduce__()[0]
        return super().find_class(module, name)
