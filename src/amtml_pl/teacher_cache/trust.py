"""Why a cache can be believed: checksums of every file, of every image, and the teachers themselves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from rich.console import Console
from rich.progress import track
from torch import Tensor

from amtml_pl.augment import Augmentation
from amtml_pl.errors import UserError
from amtml_pl.splits import SplitRows
from amtml_pl.teacher_cache.compute import BuildOptions, compute_shard, ready_for_computing
from amtml_pl.teacher_cache.pixels import pixel_checksums
from amtml_pl.teacher_cache.storage import Storage
from amtml_pl.teacher_cache.store import TensorStore
from amtml_pl.teacher_cache.teacher_stores import TeacherStores

ROWS_AT_ONCE = 512
# How far a stored value may be from one that is computed again, as a share of the largest in its row: the
# rounding of the storage, and of a convolution that adds in another order.
TOLERANCE: dict[Storage, float] = {"float32": 1e-4, "float16": 2e-3, "int8": 2e-2}
TOLERANCE_OF_AUTOCAST = 5e-2


def verify_checksums(teachers: Sequence[TeacherStores], views: Sequence[int], console: Console) -> None:
    """Holds every shard of the given views against its checksum.

    Raises:
        UserError: naming the first file that has changed.
    """
    stores = [store for teacher in teachers for store in teacher.stores.values()]
    work = [*itertools.product(stores, views)]
    quiet = not console.is_terminal or len(work) < 2 * len(stores)
    for store, view in track(work, "checksums of the cache", console=console, disable=quiet, transient=True):
        store.verify(view)


def probe(
    teachers: Sequence[TeacherStores],
    split: SplitRows,
    augment: Augmentation,
    views: Sequence[int],
    pairs: int = 64,
    generator: np.random.Generator | None = None,
) -> None:
    """Derives the pixels of random samples and views anew, and holds them against those of the cache.

    It needs no teacher, and notices what no fingerprint knows: other code of an augmentation, another
    decoder, a damaged image.

    Args:
        teachers: with their stores.
        split: the images.
        augment: turns them into their views.
        views: the complete ones.
        pairs: of sample and view that are looked at.
        generator: draws them; None draws others each time.

    Raises:
        UserError: at the first image that is another.
    """
    if not views:
        return
    generator = generator or np.random.default_rng()
    drawn = generator.choice(np.asarray(views), size=pairs)
    for view in np.unique(drawn):
        index = torch.from_numpy(generator.integers(len(split), size=int((drawn == view).sum())))
        compare_pixels(teachers, split, augment, int(view), index)


def all_pixels(teachers: Sequence[TeacherStores], split: SplitRows, augment: Augmentation, view: int) -> None:
    """Holds the pixels of every sample in a view against those of the cache.

    Raises:
        UserError: at the first image that is another.
    """
    for index in torch.split(torch.arange(len(split)), ROWS_AT_ONCE):
        compare_pixels(teachers, split, augment, view, index)


def compare_pixels(
    teachers: Sequence[TeacherStores],
    split: SplitRows,
    augment: Augmentation,
    view: int,
    index: Int64[Tensor, " B"],
) -> None:
    """Holds the pixels of the given samples against every store.

    Raises:
        UserError: at the first image that is another.
    """
    now = pixel_checksums(augment(split.stored.images[split.rows[index]], index, view))
    for teacher in teachers:
        for store in teacher.stores.values():
            then = store.open(view).pixels(index)
            if len(wrong := (now != then).nonzero().flatten()):
                first = int(wrong[0])
                raise UserError(
                    f"The pixels of sample {int(index[first])} of {split.name} in view {view} are not those "
                    f"that {store.folder} was built from: checksum {int(now[first]):08x}, in the cache "
                    f"{int(then[first]):08x}. The images or the code of the augmentation have changed.",
                    fix=f"rm -r '{store.folder}' and repeat the command: it is built again",
                )


def compare(
    teacher: TeacherStores,
    split: SplitRows,
    augment: Augmentation,
    views: Sequence[int],
    rows: int,
    options: BuildOptions,
    generator: np.random.Generator | None = None,
) -> dict[str, float]:
    """Asks the teacher again for random samples of every view.

    Args:
        teacher: with its stores.
        split: the images.
        augment: turns them into their views.
        views: the complete ones.
        rows: random samples of each view.
        options: how the teacher is run.
        generator: draws them; None draws others each time.

    Returns:
        Per tensor the largest difference, as a share of the largest value in its row.

    Raises:
        UserError: if a value differs by more than rounding, or a logit's largest is another.
    """
    generator = generator or np.random.default_rng()
    loaded = ready_for_computing(teacher.load(), options)
    largest = dict.fromkeys(teacher.stores, 0.0)
    for view in views:
        drawn = np.sort(generator.choice(len(split), size=min(rows, len(split)), replace=False))
        part = SplitRows(split.name, split.stored, split.rows[torch.from_numpy(drawn)])
        index = torch.from_numpy(drawn)
        shard = compute_shard(loaded, part, Renumbered(augment, index), view, range(len(part)), options)
        for tensor, store in teacher.stores.items():
            stored = store.open(view).rows(index).float()
            found = relative_difference(stored, shard.tensors[tensor])
            allowed = TOLERANCE[store.storage] if options.precision == "float32" else TOLERANCE_OF_AUTOCAST
            if len(wrong := (found > allowed).nonzero().flatten()):
                raise other_teacher(store, view, int(index[wrong[0]]), found[wrong[0]].item(), allowed)
            largest[tensor] = max(largest[tensor], found.max().item())
    return largest


class Renumbered(Augmentation):
    """An augmentation for a choice of samples that are counted from 0: each keeps the number it had."""

    def __init__(self, augment: Augmentation, index: Int64[Tensor, " B"]) -> None:
        super().__init__(augment.operations, augment.seed)
        self.index = index

    def __call__(self, images: Any, index: Int64[Tensor, " B"], view: int) -> Float[Tensor, "B 3 H W"]:  # noqa: ANN401
        """The given view of each image, by its number in the whole split."""
        return super().__call__(images, self.index[index], view)


def relative_difference(stored: Float[Tensor, "B ..."], now: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
    """The largest difference in each row, as a share of its largest value."""
    scale = now.flatten(1).abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    return (stored - now).flatten(1).abs().amax(dim=1) / scale


def other_teacher(store: TensorStore, view: int, sample: int, found: float, allowed: float) -> UserError:
    """What to say of a value that the teacher does not give any more."""
    return UserError(
        f"Teacher {store.teacher!r} gives other {store.tensor} for sample {sample} of {store.split} in view "
        f"{view} than {store.folder} holds: they differ by {found:.1e} of the largest, at most {allowed:.0e} "
        "is rounding.",
        fix=f"rm -r '{store.folder}' and repeat: python -m amtml_pl.cache action=build with these overrides",
    )
