"""Choose disjoint training, validation and test images of a packed data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64, UInt64
from torch import Tensor

from amtml_pl.data.counter_rng import permutation, random_bits
from amtml_pl.data.packing import PackedDataset
from amtml_pl.errors import UserError
from amtml_pl.system.files import short_digest
from amtml_pl.types import Split, SplitName

# Separate the random numbers of the splits from others of an equal seed.
_VALIDATION, _SUBSET = 2**33, 2**33 + 1


def disjoint_splits(
    packed: PackedDataset,
    val_size: int | float,
    train_size: int | None,
    seed: int,
    classes: Sequence[int] | None = None,
    *,
    clip_train_size: bool = False,
) -> dict[SplitName, SplitRows]:
    """Return training, validation and, if packed, test images; a function of the arguments.

    Every class keeps a training image. A class of two images or more has a validation image, too, unless
    ``val_size`` is 0.

    Args:
        packed: its validation split is used if it has one, else a stratified part of its training split.
        val_size: validation images, a whole number or a fraction of the packed training split; 0 leaves out
            the validation split, unless one is packed.
        train_size: training images, stratified, from what validation leaves; None for all.
        seed: of both choices.
        classes: leaves out the images of other classes, after both choices: none moves to another split.
        clip_train_size: True to take the nearest possible number in place of an impossible ``train_size``.

    Raises:
        UserError: if the training split is missing, or a size or class is out of range.
    """
    if "train" not in packed.splits:
        raise UserError(f"{packed.folder} has no train split (got {list(packed.splits)}).")
    stored, K = packed.splits["train"], len(packed.classes)
    rows, labels = np.arange(len(stored)), stored.labels.numpy()
    val: dict[SplitName, SplitRows] = {}
    if "val" in packed.splits:
        val = {"val": _whole(packed, "val")}
    elif val_size:
        size = round(val_size * len(stored)) if isinstance(val_size, float) else val_size
        _check_size("val_size", val_size, size, K, len(stored) - K)
        chosen = _stratified(labels, size, random_bits(seed, _VALIDATION), spare_one=True)
        val = {"val": SplitRows("val", stored, torch.from_numpy(chosen))}
        rows = np.setdiff1d(rows, chosen)
    if train_size is not None:
        if clip_train_size:
            train_size = min(max(train_size, K), len(rows))
        _check_size("train_size", train_size, train_size, K, len(rows))
        rows = rows[_stratified(labels[rows], train_size, random_bits(seed, _SUBSET), spare_one=False)]
    train = SplitRows("train", stored, torch.from_numpy(rows))
    test: dict[SplitName, SplitRows] = {"test": _whole(packed, "test")} if "test" in packed.splits else {}
    splits: dict[SplitName, SplitRows] = {"train": train, **val, **test}
    return splits if classes is None else {name: of_classes(s, classes, K) for name, s in splits.items()}


@dataclass(frozen=True)
class SplitRows:
    """A split as chosen rows of a packed one; samples count within the choice.

    Attributes:
        name: of the split that batches belong to.
        stored: the packed split that holds the images.
        rows: ``(N,)``, rising, each sample's row in ``stored``.
    """

    name: SplitName
    stored: Split
    rows: Int64[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> str:
        """The digest of the rows, for fingerprints."""
        return short_digest(self.rows.numpy().tobytes(), digits=16)


def of_classes(split: SplitRows, classes: Sequence[int], num_classes: int) -> SplitRows:
    """Return the images of some classes; unusable classes, or no images, are a UserError."""
    usable = len(set(classes)) == len(classes) > 1 and all(0 <= each < num_classes for each in classes)
    rows = split.rows[torch.isin(split.stored.labels[split.rows], torch.tensor(classes))]
    if not usable or not len(rows):
        problem = "selects no image" if usable else "is wrong"
        raise UserError(
            f"data.classes={list(classes)} {problem} in the {split.name} split (expected 2 or more different "
            f"numbers from 0 to {num_classes - 1}, of classes with images).",
            fix="data.classes=null",
        )
    return SplitRows(split.name, split.stored, rows)


def _whole(packed: PackedDataset, name: SplitName) -> SplitRows:
    stored = packed.splits[name]
    return SplitRows(name, stored, torch.arange(len(stored)))


def _stratified(
    labels: Int64[np.ndarray, " N"], size: int, state: UInt64[np.ndarray, " 1"], *, spare_one: bool
) -> Int64[np.ndarray, " {size}"]:
    """Return ``size`` positions, rising, with every class in proportion.

    Each class is shuffled and spread evenly over [0, 1], its first sample at 0 and, with ``spare_one``, its
    last at 1. The first ``size`` samples are taken. Unlike scikit-learn's ``StratifiedShuffleSplit`` this
    allows classes of one image and any remainder, and a larger choice holds every smaller one.
    """
    order = permutation(len(labels), state)
    shuffled = labels[order]
    by_class = shuffled.argsort(kind="stable")
    counts = np.bincount(shuffled)
    rank = np.arange(len(labels)) - np.repeat(counts.cumsum() - counts, counts)
    total = np.repeat(counts, counts)
    spread = (rank + 0.5) / total
    spread[rank == 0] = 0.0
    if spare_one:
        spread[rank == total - 1] = 1.0
    first = by_class[np.lexsort((by_class, spread))[:size]]
    return np.sort(order[first])


def _check_size(name: str, given: int | float, size: int, smallest: int, largest: int) -> None:
    if not smallest <= size <= largest:
        raise UserError(
            f"data.{name}={given} selects too {'few' if size < smallest else 'many'} images (got {size}, "
            f"expected {smallest} to {largest}, at least one per class"
            f"{', or 0 for no validation split' if name == 'val_size' else ''}).",
            fix=f"data.{name}={max(smallest, largest // 10)}",
        )
