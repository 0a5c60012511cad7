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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from pydantic import Field

from amtml_pl.data.source import DatasetSource
from amtml_pl.errors import UserError
from amtml_pl.system.files import short_digest
from amtml_pl.system.ranks import is_rank_zero
from amtml_pl.system.records import Count, Record, read_record, write_record
from amtml_pl.types import Split, SplitName, counted_kinds

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
CHUNK_ROWS = 4096


class PackedManifest(Record):
    """The content of a packed folder, with a digest of pixels, labels and classes."""

    format: Literal[2] = 2
    identity: dict[str, Any]
    signature: str | None
    classes: tuple[str, ...]
    splits: dict[SplitName, Count]
    files: dict[str, Count]
    digest: str
    left_out: dict[str, Count] = Field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> PackedManifest:
        """Return a packed folder's manifest; damage or another format is a UserError."""
        return read_record(cls, folder / MANIFEST, fix=_fix(folder))


@dataclass(frozen=True)
class PackedDataset:
    """A packed data set; its tensors are mapped from disk, not held in memory."""

    folder: Path
    digest: str  # SHA-256 of images, labels and class names
    classes: tuple[str, ...]  # the K names, in label order
    splits: Mapping[SplitName, Split]
    left_out: Mapping[str, int] = field(default_factory=dict)  # unread files, by suffix

    @classmethod
    def open(cls, folder: Path) -> PackedDataset:
        """Map a packed folder; missing files or other sizes or formats are a UserError."""
        manifest = PackedManifest.read(folder)
        found = _sizes(folder)
        if differing := [name for name, size in manifest.files.items() if found.get(name) != size]:
            raise _damaged(folder / differing[0], f"is missing, or has another size than {MANIFEST} lists")
        splits = {name: _mapped(folder, name, manifest.classes, n) for name, n in manifest.splits.items()}
        return cls(folder, manifest.digest, manifest.classes, splits, manifest.left_out)

    def verify(self) -> None:
        """Compare every pixel, label and class name with the digest; a difference is a UserError."""
        if _digest(self.splits) != self.digest:
            raise _damaged(self.folder / MANIFEST, "does not match the checksum of the images and labels")


def packed_folder(source: DatasetSource, root: Path) -> Path:
    """Return the folder of a source's packed form below ``root``, named by its identity."""
    version = PackedManifest.model_fields["format"].default
    identity = json.dumps({**source.identity(), "format": version}, sort_keys=True)
    return root / f"{type(source).__name__.lower()}-{short_digest(identity, digits=8)}"


def is_packed(source: DatasetSource, root: Path) -> bool:
    """Return True if a source was packed below ``root``, perhaps from older raw data."""
    return (packed_folder(source, root) / MANIFEST).is_file()


def find_packed(source: DatasetSource, root: Path) -> PackedDataset | None:
    """Return the packed form of a source, None if missing; damage is a UserError."""
    return PackedDataset.open(packed_folder(source, root)) if is_packed(source, root) else None


def packed_again(source: DatasetSource, root: Path) -> PackedDataset | None:
    """Return the packed form of a source, brought up to date; None if missing."""
    if is_packed(source, root) and not _is_current(source, root):
        return pack(source, root)
    return find_packed(source, root)


def pack(source: DatasetSource, root: Path) -> PackedDataset:
    """Return the packed form of a source, packing first if it is missing or outdated.

    Missing raw data is fetched. Of two processes that pack the same source, the second one waits. Rank 0
    compares an existing folder with its digest.

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
            raise UserError(
                f"The packed data set {folder} cannot be written: {error}.",
                fix="free some disk space, or set paths.data to a folder on another disk",
            ) from error
    packed = PackedDataset.open(folder)
    if is_rank_zero():
        packed.verify()
    return packed


def _is_current(source: DatasetSource, root: Path) -> bool:
    if not is_packed(source, root):
        return False
    now = source.signature()
    return now is None or now == PackedManifest.read(packed_folder(source, root)).signature


def _pack_anew(source: DatasetSource, folder: Path) -> None:
    """Write the packed folder under a temporary name, then rename it."""
    if folder.exists():
        log.info("The raw data of %s has changed since it was packed. It is packed again.", folder.name)
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
    splits: dict[SplitName, Split] = {}
    left_out: Counter[str] = Counter()
    for name in source.splits:
        split = source.read(name)
        left_out.update(split.left_out)
        _check(split, name, next(iter(splits.values()), split).classes)
        free, needed = shutil.disk_usage(folder).free, split.images.nbytes + split.labels.nbytes
        if free < needed:
            raise OSError(errno.ENOSPC, f"{free / 1e6:.0f} MB free, split {name} needs {needed / 1e6:.0f} MB")
        np.save(folder / f"{name}.images.npy", split.images.contiguous().numpy())
        np.save(folder / f"{name}.labels.npy", split.labels.contiguous().numpy())
        splits[name] = _mapped(folder, name, split.classes, len(split))
    return PackedManifest(
        identity=source.identity(),
        signature=signature,
        classes=split.classes,
        splits={name: len(split) for name, split in splits.items()},
        files=_sizes(folder),
        digest=_digest(splits),
        left_out=dict(left_out),
    )


def _sizes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in sorted(folder.glob("*.npy"))}


def _digest(splits: Mapping[SplitName, Split]) -> str:
    """Return the SHA-256 of all pixels, labels and class names."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {tuple(split.images.shape)} {json.dumps(split.classes)}".encode())
        for rows in (
            *torch.split(split.images, CHUNK_ROWS),
            split.labels,
        ):  # Ctrl-C is noticed between two chunks
            digest.update(rows.numpy().data)
    return digest.hexdigest()


def _check(split: Split, name: SplitName, classes: tuple[str, ...]) -> None:
    """Raise a UserError if a source's split is not valid."""
    if split.classes != classes:
        raise UserError(f"The {name} split and the first split of the data set have different class names.")
    if len(split) == 0 or len(split.images) != len(split.labels):
        counts = f"got {len(split.images)} images and {len(split.labels)} labels"
        raise UserError(f"The {name} split is not valid ({counts}, expected one label per image).")
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= len(classes):
        expected = f"expected 0 to {len(classes) - 1}"
        raise UserError(f"The {name} split has wrong labels (got {low} to {high}, {expected}).")
    empty = [repr(label) for k, label in enumerate(classes) if not (split.labels == k).any()]
    if name == "train" and empty:
        raise UserError(
            f"The training split has no image of class {', '.join(empty)}.",
            fix="add training images of this class, or remove the class from every split",
        )


def _mapped(folder: Path, split: SplitName, classes: tuple[str, ...], rows: int) -> Split:
    arrays = []
    for kind, dtype, dimensions in (("images", np.uint8, 4), ("labels", np.int64, 1)):
        file = folder / f"{split}.{kind}.npy"
        try:
            # copy-on-write: torch refuses read-only memory with a warning, and nothing reaches the file
            array = np.lib.format.open_memmap(file, mode="c")
        except Exception as error:  # a damaged header fails in any way
            raise _damaged(file, f"cannot be mapped into memory ({error!s:.200})") from error
        fits = array.ndim == dimensions and len(array) == rows and array.flags.c_contiguous
        if array.dtype != dtype or not fits or (kind == "images" and array.shape[1] != 3):
            raise _damaged(
                file, f"is {array.dtype} of {array.shape}, expected {rows} rows of {dtype.__name__}"
            )
        arrays.append(torch.from_numpy(array))
    images, labels = arrays
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise _damaged(file, f"has labels out of range (expected 0 to {len(classes) - 1})")
    return Split(images, labels, classes)


def _damaged(file: Path, what: str) -> UserError:
    return UserError(f"The packed file {file} {what}.", fix=_fix(file.parent))


def _fix(folder: Path) -> str:
    return f"rm -r '{folder}' and repeat the command, which packs the data again"
