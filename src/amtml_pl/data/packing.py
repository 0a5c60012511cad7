"""Read a data set once, and store it as uint8 files to map into memory.

A packed folder holds ``<split>.images.npy``, ``<split>.labels.npy`` and ``manifest.json``. It is written
under a temporary name and renamed at the end, so that a folder with this name is complete.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from filelock import FileLock
from pydantic import AfterValidator, Field
from rich.progress import track

from amtml_pl.data.source import DatasetSource
from amtml_pl.errors import UserError
from amtml_pl.system.console import Terminal, is_watched
from amtml_pl.system.ranks import is_rank_zero
from amtml_pl.system.records import Count, Record, read_record, write_record
from amtml_pl.types import Split, SplitName, counted_kinds

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CHUNK_ROWS = 4096


def plain(name: str) -> str:
    """Return a file's name; a ValueError if it is a path."""
    if Path(name).name != name:
        raise ValueError(f"{name!r:.80} is not the name of a file in the folder")
    return name


FileName = Annotated[str, AfterValidator(plain)]


class PackedManifest(Record):
    """The content of a packed folder, with a digest of pixels, labels and classes."""

    format: Literal[2] = 2
    identity: dict[str, Any]
    signature: str | None
    classes: tuple[str, ...]
    splits: dict[SplitName, Count]
    files: dict[FileName, Count]
    digest: str
    left_out: dict[str, Count] = Field(default_factory=dict)


FORMAT_VERSION = PackedManifest.model_fields["format"].default


@dataclass(frozen=True)
class PackedDataset:
    """A packed data set; its tensors are mapped from disk, not held in memory."""

    folder: Path
    digest: str
    classes: tuple[str, ...]
    splits: Mapping[SplitName, Split]
    left_out: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path) -> PackedDataset:
        """Map a packed folder; missing files or other sizes or formats are a UserError."""
        manifest = read_manifest(folder)
        for name, size in manifest.files.items():
            got = (folder / name).stat().st_size if (folder / name).is_file() else 0
            if got != size:
                raise _damaged(folder / name, f"has {got} bytes, expected {size}")
        classes = manifest.classes
        splits = {split: _mapped(folder, split, classes, rows) for split, rows in manifest.splits.items()}
        return cls(folder, manifest.digest, classes, splits, manifest.left_out)

    def verify(self) -> None:
        """Compare every pixel, label and class name with the digest; a difference is a UserError."""
        digest = hashlib.sha256()
        for name, split in self.splits.items():
            digest.update(_head(name, split))
            for array in (split.images.numpy(), split.labels.numpy()):
                for start in range(0, len(array), CHUNK_ROWS):
                    digest.update(array[start : start + CHUNK_ROWS].data)
        if digest.hexdigest() != self.digest:
            raise _damaged(self.folder / MANIFEST, "lists another checksum than its images and labels have")


def packed_folder(source: DatasetSource, root: Path) -> Path:
    """Return the folder of a source's packed form below ``root``, named by its identity."""
    identity = json.dumps({**source.identity(), "format": FORMAT_VERSION}, sort_keys=True)
    return root / f"{type(source).__name__.lower()}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def is_packed(source: DatasetSource, root: Path) -> bool:
    """Return whether a source has been packed below ``root``, perhaps from older raw data."""
    return (packed_folder(source, root) / MANIFEST).is_file()


def find_packed(source: DatasetSource, root: Path) -> PackedDataset | None:
    """Return the packed form of a source, None if missing; damage is a UserError."""
    return PackedDataset.open(packed_folder(source, root)) if is_packed(source, root) else None


def pack(source: DatasetSource, root: Path) -> PackedDataset:
    """Return the packed form of a source, packing first if it is missing or outdated.

    Missing raw data is fetched. Two processes that pack the same source share the work. An existing folder is
    compared with its digest, by the first process of a run.

    Raises:
        UserError: the raw data can be neither found nor fetched, or is damaged; a training class is empty
            or a label out of range; the disk is full; or an existing packed folder is damaged.
    """
    folder = packed_folder(source, root)
    if not _is_current(source, root):
        try:
            root.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                if not _is_current(source, root):  # another process may have packed it meanwhile
                    _pack_anew(source, folder)
        except OSError as error:
            fix = "free some space there, or point paths.data to another folder"
            raise UserError(f"The packed data set {folder} cannot be written: {error}.", fix=fix) from error
    packed = PackedDataset.open(folder)
    if is_rank_zero():
        packed.verify()
    return packed


def _is_current(source: DatasetSource, root: Path) -> bool:
    if not is_packed(source, root):
        return False
    now = source.signature()
    return now is None or now == read_manifest(packed_folder(source, root)).signature


def _pack_anew(source: DatasetSource, folder: Path) -> None:
    """Write the packed folder under a temporary name, then rename it."""
    if folder.exists():
        log.info("The raw data of %s has changed since it was packed: packing it again.", folder.name)
    source.fetch()
    signature = source.signature()  # before reading: the next run notices changes made meanwhile
    growing = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(growing, ignore_errors=True)  # left behind by a process that was killed
    growing.mkdir()
    try:
        manifest = _write_splits(source, signature, growing)
        write_record(growing / MANIFEST, manifest)
        # Runs that have the old files mapped keep them: the system frees them with the last of the mappings.
        shutil.rmtree(old := folder.with_name(f"{folder.name}.old"), ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        growing.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        if manifest.left_out:
            log.warning("Packed %s; %s", folder.name, counted_kinds(manifest.left_out))
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def _write_splits(source: DatasetSource, signature: str | None, folder: Path) -> PackedManifest:
    """Write one split after the other, to keep only one in memory, and hash them."""
    digest = hashlib.sha256()
    rows: dict[SplitName, int] = {}
    classes: tuple[str, ...] | None = None
    left_out: Counter[str] = Counter()
    for name in source.splits:
        split = source.read(name)
        left_out.update(split.left_out)
        _check(split, name, classes)
        classes = split.classes
        free, needed = shutil.disk_usage(folder).free, split.images.nbytes + split.labels.nbytes
        if free < needed:
            raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB are free, {name} needs {needed / 1e6:.0f} MB")
        digest.update(_head(name, split))
        _write_array(folder / f"{name}.images.npy", split.images.numpy(), digest.update, f"packing {name}")
        _write_array(folder / f"{name}.labels.npy", split.labels.numpy(), digest.update, f"packing {name}")
        rows[name] = len(split)
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    return PackedManifest(
        identity=source.identity(),
        signature=signature,
        classes=classes or (),
        splits=rows,
        files=files,
        digest=digest.hexdigest(),
        left_out=dict(left_out),
    )


def _head(name: SplitName, split: Split) -> bytes:
    """Return what the digest covers of a split besides its arrays."""
    return f"{name} {tuple(split.images.shape)} {json.dumps(split.classes)}".encode()


def _write_array(file: Path, array: np.ndarray, hashed: Callable[[memoryview], None], title: str) -> None:
    """Write an array in chunks as ``np.save`` does; a full disk raises an error."""
    array, console = np.ascontiguousarray(array), Terminal(stderr=True)
    quiet = not is_watched(console)
    with file.open("wb") as out:
        np.lib.format.write_array_header_1_0(out, np.lib.format.header_data_from_array_1_0(array))
        chunks = range(0, len(array), CHUNK_ROWS)
        for first in track(chunks, title, console=console, transient=True, disable=quiet):
            content = array[first : first + CHUNK_ROWS].data
            out.write(content)
            hashed(content)


def _check(split: Split, name: SplitName, classes: tuple[str, ...] | None) -> None:
    """Raise a UserError if a source's split is not valid."""
    if classes is not None and split.classes != classes:
        raise UserError(f"The classes of split {name} differ from those of the first split.")
    if len(split) == 0 or len(split.images) != len(split.labels):
        raise UserError(f"Split {name} has {len(split.images)} images and {len(split.labels)} labels.")
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= len(split.classes):
        raise UserError(f"Split {name} has labels {low} to {high}, expected 0 to {len(split.classes) - 1}.")
    images_per_class = torch.bincount(split.labels, minlength=len(split.classes)).tolist()
    empty = [label for label, n in zip(split.classes, images_per_class, strict=True) if n == 0]
    if name == "train" and empty:
        raise UserError(
            f"No training image of class {', '.join(map(repr, empty))}.",
            fix="add training images of it, or remove the class from every split",
        )


def read_manifest(folder: Path) -> PackedManifest:
    """Return a packed folder's manifest; damage or another format is a UserError."""
    return read_record(PackedManifest, folder / MANIFEST, fix=_again(folder))


def _mapped(folder: Path, split: SplitName, classes: tuple[str, ...], rows: int) -> Split:
    arrays = []
    for kind, dtype, dimensions in (("images", np.uint8, 4), ("labels", np.int64, 1)):
        file = folder / f"{split}.{kind}.npy"
        try:
            # copy-on-write: torch refuses read-only memory with a warning, and nothing reaches the file
            array = np.lib.format.open_memmap(file, mode="c")
        except Exception as error:  # a damaged header fails in any way
            raise _damaged(file, f"cannot be mapped ({error!s:.200})") from error
        fits = array.ndim == dimensions and len(array) == rows and array.flags.c_contiguous
        if array.dtype != dtype or not fits or (kind == "images" and array.shape[1] != 3):
            raise _damaged(file, f"is {array.dtype} {array.shape}, expected {dtype.__name__} of {rows} rows")
        arrays.append(torch.from_numpy(array))
    images, labels = arrays
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise _damaged(file, f"has labels outside 0 to {len(classes) - 1}")
    return Split(images, labels, classes)


def _damaged(file: Path, what: str) -> UserError:
    return UserError(f"The packed file {file} {what}.", fix=_again(file.parent))


def _again(folder: Path) -> str:
    return f"rm -r '{folder}' and repeat the command: it is packed again"
