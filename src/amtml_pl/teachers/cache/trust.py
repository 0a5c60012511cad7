"""Why a cache can be believed: checksums of every file, of every image, and the teachers themselves."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int64
from rich.console import Console
from rich.progress import track
from torch import Tensor

from amtml_pl.data.augment import Augmentation
from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.system.console import is_watched
from amtml_pl.teachers.cache.compute import BuildOptions, compute_shard, ready_for_computing
from amtml_pl.teachers.cache.storage import INT8_STEPS, Storage, pixel_checksums
from amtml_pl.teachers.cache.store import TensorStore
from amtml_pl.teachers.cache.teacher_stores import TeacherStores, all_stores
from amtml_pl.teachers.cache.view import StoredView

ROWS_AT_ONCE = 512
# How far a stored value may be from one that is computed again, as a share of the largest in its row (of
# int8 in its shard): the rounding of the storage, and of a convolution that adds in another order.
TOLERANCE: dict[Storage, float] = {"float32": 1e-4, "float16": 2e-3, "int8": 5e-3}
TOLERANCE_OF_AUTOCAST = 5e-2


def verify_checksums(teachers: Sequence[TeacherStores], views: Sequence[int], console: Console) -> None:
    """Compare every shard of the given views with its checksum; a UserError names the first that differs."""
    stores = all_stores(teachers)
    work = [*itertools.product(stores, views)]
    quiet = not is_watched(console) or len(work) < 2 * len(stores)
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

    Raises:
        UserError: at the first image that is another.
    """
    stores = all_stores(teachers)
    there = [view for view in views if any(store.is_complete(view) for store in stores)]
    if not there:
        return
    generator = generator or np.random.default_rng()
    drawn = generator.choice(np.asarray(there), size=pairs)
    for view in np.unique(drawn):
        index = torch.from_numpy(generator.integers(len(split), size=int((drawn == view).sum())))
        compare_pixels(teachers, split, augment, int(view), index)


def probe_every_shard(
    teachers: Sequence[TeacherStores],
    split: SplitRows,
    augment: Augmentation,
    views: Sequence[int],
    generator: np.random.Generator | None = None,
) -> None:
    """Compare one random sample of every shard: a build may have been begun by other code."""
    generator = generator or np.random.default_rng()
    spans = {span for store in all_stores(teachers) for span in map(store.rows_of, store.shards())}
    for view in views:
        index = [int(generator.integers(span.start, span.stop)) for span in sorted(spans, key=str)]
        compare_pixels(teachers, split, augment, view, torch.tensor(index))


def compare_pixels(
    teachers: Sequence[TeacherStores],
    split: SplitRows,
    augment: Augmentation,
    view: int,
    samples: Int64[Tensor, " B"] | None = None,
) -> None:
    """Compare the pixels of samples, or of all, with each store of the view; another is a UserError."""
    samples = torch.arange(len(split)) if samples is None else samples
    stores = all_stores(teachers)
    opened = [(store, store.open(view)) for store in stores if store.is_complete(view)]
    for index in torch.split(samples, ROWS_AT_ONCE):
        now = pixel_checksums(augment(split.stored.images[split.rows[index]], index, view))
        for store, stored in opened:
            then = stored.pixels(index)
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

    Returns:
        Per tensor the largest difference, as a share of the largest value in its row (int8: in its shard).

    Raises:
        UserError: if a value differs by more than rounding, or the largest logit is another class's.
    """
    generator = generator or np.random.default_rng()
    loaded = ready_for_computing(teacher.load(), options)
    largest = dict.fromkeys(teacher.stores, 0.0)
    for view in views:
        samples = np.sort(generator.choice(len(split), size=min(rows, len(split)), replace=False))
        index = torch.from_numpy(samples)
        shard = compute_shard(loaded, split, augment, view, samples.tolist(), options)
        for tensor, store in teacher.stores.items():
            stored, now = store.open(view), shard.tensors[tensor]
            found = relative_difference(stored.rows(index).float(), now, largest_beside(stored, index))
            allowed = TOLERANCE[store.storage] if options.precision == "float32" else TOLERANCE_OF_AUTOCAST
            if len(wrong := (~(found <= allowed)).nonzero().flatten()):  # NaN is no rounding either
                first = int(wrong[0])
                raise other_teacher(
                    store,
                    view,
                    int(index[first]),
                    f"they differ by {found[first]:.1e} of the largest, at most {allowed:.0e} is rounding",
                )
            if tensor == "logits" and len(wrong := other_class(stored.rows(index), now, options)):
                raise other_teacher(store, view, int(index[wrong[0]]), "another class has the largest")
            largest[tensor] = max(largest[tensor], found.max().item())
    return largest


def largest_beside(stored: StoredView, index: Int64[Tensor, " B"]) -> Float[Tensor, " B"]:
    """What int8 rounds by: the largest value of the shard that each row lies in; 0 for other storages."""
    largest = [INT8_STEPS * shard["scale"].max() if "scale" in shard else 0.0 for shard in stored.shards]
    return torch.tensor(largest)[index // stored.shard_rows]


def relative_difference(
    stored: Float[Tensor, "B ..."], now: Float[Tensor, "B ..."], beside: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """The largest difference in each row, as a share of its largest value, or of a larger one beside it."""
    largest = torch.maximum(now.flatten(1).abs().amax(dim=1), beside)
    return (stored - now).flatten(1).abs().amax(dim=1) / largest.clamp_min(torch.finfo(torch.float32).tiny)


def other_class(
    stored: Float[Tensor, "B K"], now: Float[Tensor, "B K"], options: BuildOptions
) -> Int64[Tensor, " _"]:
    """The rows that name another class; storing keeps it, so that only a tie in computing excuses it."""
    tie = TOLERANCE["float32"] if options.precision == "float32" else TOLERANCE_OF_AUTOCAST
    lead = now.amax(dim=1) - now.gather(1, stored.argmax(dim=1, keepdim=True)).squeeze(1)
    return (lead > tie * now.abs().amax(dim=1)).nonzero().flatten()


def other_teacher(store: TensorStore, view: int, sample: int, how: str) -> UserError:
    """What to say of a value that the teacher does not give any more."""
    return UserError(
        f"Teacher {store.teacher!r} gives other {store.tensor} for sample {sample} of {store.split} in view "
        f"{view} than {store.folder} holds: {how}.",
        fix=f"rm -r '{store.folder}' and repeat: python -m amtml_pl.cache action=build with these overrides",
    )
