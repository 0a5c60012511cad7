"""Check a cache: checksums of its files, checksums of pixels, and the teachers' outputs."""

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
from amtml_pl.teachers.cache.statistics import find_statistics
from amtml_pl.teachers.cache.storage import INT8_STEPS, Storage, pixel_checksums
from amtml_pl.teachers.cache.store import TensorStore
from amtml_pl.teachers.cache.teacher_stores import TeacherStores, all_stores
from amtml_pl.teachers.cache.view import StoredView, rebuild_fix

ROWS_AT_ONCE = 512
# The largest difference of a stored value from a recomputed one, as a share of the largest in its row (of
# int8 in its shard): rounding of the storage, and of a convolution that adds in another order.
TOLERANCE: dict[Storage, float] = {"float32": 1e-4, "float16": 2e-3, "int8": 5e-3}
TOLERANCE_OF_AUTOCAST = 5e-2


def verify_checksums(teachers: Sequence[TeacherStores], views: Sequence[int], console: Console) -> None:
    """Compare every file that the run reads of the views with its checksum.

    Raises:
        UserError: for a difference.
    """
    stores = all_stores(teachers)
    work = [*itertools.product(stores, views)]
    quiet = not is_watched(console) or len(work) < 2 * len(stores)
    for store, view in track(
        work, "verifying cache checksums", console=console, disable=quiet, transient=True
    ):
        store.verify(view)
    for teacher, view in itertools.product(teachers, views):
        for tap in teacher.summed:
            find_statistics(teacher.hints[tap], view)


def probe(
    teachers: Sequence[TeacherStores],
    split: SplitRows,
    augment: Augmentation,
    views: Sequence[int],
    pairs: int = 64,
    generator: np.random.Generator | None = None,
) -> None:
    """Recompute the pixels of random samples and views, and compare them with the cache.

    It needs no teacher, and detects changes of an augmentation's code, of a decoder, or of an image.
    """
    stores, generator = all_stores(teachers), generator or np.random.default_rng()
    complete = [view for view in views if any(store.is_complete(view) for store in stores)]
    drawn = generator.choice(np.asarray(complete), size=pairs if complete else 0)
    for view in np.unique(drawn):
        index = torch.from_numpy(generator.integers(len(split), size=int((drawn == view).sum())))
        compare_pixels(teachers, split, augment, int(view), index)


def probe_every_shard(
    teachers: Sequence[TeacherStores], split: SplitRows, augment: Augmentation, views: Sequence[int]
) -> None:
    """Compare a random sample of every shard, as old shards may come from other code."""
    generator = np.random.default_rng()
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
    """Compare pixels of samples, or of all, with each store; a difference is a UserError."""
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
                    f"The pixels of {split.name} sample {int(index[first])} in view {view} do not match "
                    f"the cache {store.folder} (got checksum {int(now[first]):08x}, expected "
                    f"{int(then[first]):08x}). The images or the augmentation code have changed.",
                    fix=rebuild_fix(store.folder),
                )


def compare_outputs(
    teacher: TeacherStores,
    split: SplitRows,
    augment: Augmentation,
    views: Sequence[int],
    rows: int,
    options: BuildOptions,
    generator: np.random.Generator | None = None,
) -> dict[str, float]:
    """Recompute random samples of every view, and return the largest difference by tensor.

    It is a share of the largest value in its row (int8: in its shard). More than rounding, or another class
    with the largest logit, is a UserError.
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
            if len(wrong := (~(found <= allowed)).nonzero().flatten()):  # also catches NaN
                how = f"got a relative difference of {found[wrong[0]]:.1e}, expected at most {allowed:.0e}"
                raise changed_output(store, view, int(index[wrong[0]]), how)
            if tensor == "logits" and len(wrong := changed_classes(stored.rows(index), now, options)):
                raise changed_output(
                    store, view, int(index[wrong[0]]), "the class with the largest logit has changed"
                )
            largest[tensor] = max(largest[tensor], found.max().item())
    return largest


def largest_beside(stored: StoredView, index: Int64[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Return the largest int8 value of each row's shard, which sets its rounding; else 0."""
    largest = [INT8_STEPS * shard["scale"].max() if "scale" in shard else 0.0 for shard in stored.shards]
    return torch.tensor(largest)[index // stored.shard_rows]


def relative_difference(
    stored: Float[Tensor, "B ..."], now: Float[Tensor, "B ..."], beside: Float[Tensor, " B"]
) -> Float[Tensor, " B"]:
    """Return each row's largest difference, relative to its largest value or to ``beside``.

    Two infinite values of one sign, logits of a class that the teacher does not know, do not differ.
    """
    largest = torch.maximum(without_unknown(now).flatten(1).abs().amax(dim=1), beside)
    difference = torch.where(stored == now, 0.0, stored - now).flatten(1).abs().amax(dim=1)
    return difference / largest.clamp_min(torch.finfo(torch.float32).tiny)


def without_unknown(values: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """Return values with 0 for minus infinity, the logit of an unknown class."""
    return values.masked_fill(values == -torch.inf, 0.0)


def changed_classes(
    stored: Float[Tensor, "B K"], now: Float[Tensor, "B K"], options: BuildOptions
) -> Int64[Tensor, " _"]:
    """Return the rows where another class has the largest logit, except for ties by rounding."""
    tie = TOLERANCE["float32"] if options.precision == "float32" else TOLERANCE_OF_AUTOCAST
    lead = now.amax(dim=1) - now.gather(1, stored.argmax(dim=1, keepdim=True)).squeeze(1)
    return (lead > tie * without_unknown(now).abs().amax(dim=1)).nonzero().flatten()


def changed_output(store: TensorStore, view: int, sample: int, how: str) -> UserError:
    """Return the error for a stored value that the teacher no longer gives."""
    return UserError(
        f"Output {store.tensor!r} of teacher {store.teacher!r} for {store.split} sample {sample} in view "
        f"{view} does not match the cache {store.folder} ({how}).",
        fix=f"run rm -r '{store.folder}', then python -m amtml_pl.cache action=build with the same overrides",
    )
