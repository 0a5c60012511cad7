"""Compute missing outputs, shard by shard, one teacher in memory at a time."""

from __future__ import annotations

import itertools
import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from rich.console import Console
from torch import Tensor

from amtml_pl.data.augment import Augmentation
from amtml_pl.data.splits import SplitRows
from amtml_pl.teachers.cache.catalogue import LOCKS, lock_name
from amtml_pl.teachers.cache.compute import BuildOptions, compute_shard, ready_for_computing
from amtml_pl.teachers.cache.disk import refuse_full_disk, writing
from amtml_pl.teachers.cache.progress import BuildProgress
from amtml_pl.teachers.cache.statistics import view_statistics
from amtml_pl.teachers.cache.storage import probability_error, stored_bytes
from amtml_pl.teachers.cache.teacher_stores import TeacherStores
from amtml_pl.teachers.live import Teacher

log = logging.getLogger(__name__)

LARGE_ERROR = 2e-3  # of probabilities; usual logits have 1e-4 to 4e-4 (docs/measurements/cache.md)
POLL_SECONDS = 0.2  # between two checks of another process's build


@dataclass(frozen=True)
class BuildStats:
    """The number of images that each teacher computed in a build, and the time taken."""

    teacher_passes: Counter[str]
    seconds: float


def build_stores(
    teachers: Sequence[TeacherStores],
    split: SplitRows,
    augment: Augmentation,
    views: Sequence[int],
    root: Path,
    options: BuildOptions,
    console: Console,
) -> BuildStats:
    """Compute every missing shard of the given views, and return the work done.

    Batches begin at the first row of each shard, so that the files depend neither on where an earlier build
    was interrupted nor on the process that builds a shard. Processes that lack the same views share them.
    """
    start = time.perf_counter()
    pending = {t.name: [view for view in views if t.missing(view)] for t in teachers}
    images = {t.name: sum(map(t.rows_to_compute, pending[t.name])) for t in teachers}
    progress = BuildProgress(console, pending, images)
    job = BuildJob(split, augment, root, options, progress)
    with progress.bars:
        while any(pending.values()):
            before = sum(map(len, pending.values()))
            for teacher in teachers:
                pending[teacher.name] = job.build_views(teacher, pending[teacher.name])
            if before == sum(map(len, pending.values())):
                progress.wait(root)
                time.sleep(POLL_SECONDS)
    computed = Counter({name: number for name, number in progress.computed.items() if number})
    return BuildStats(computed, time.perf_counter() - start)


@dataclass(frozen=True)
class BuildJob:
    """The common settings of all views in one build."""

    split: SplitRows
    augment: Augmentation
    root: Path
    options: BuildOptions
    progress: BuildProgress
    warned: set[str] = field(default_factory=set)

    def build_views(self, teacher: TeacherStores, views: Sequence[int]) -> list[int]:
        """Build the views that no other process is building; return the others."""
        loaded: Teacher | None = None
        postponed = []
        for view in views:
            with self.locked(teacher, view) as free:
                if not free:
                    postponed.append(view)
                elif missing := teacher.missing(view):  # another process may have built it meanwhile
                    loaded = loaded or self.load(teacher, views)
                    self.build_view(teacher, loaded, view, missing)
        if loaded is not None:
            self.progress.finish(teacher.name)
            if self.options.resolved_device().type == "cuda":
                del loaded
                torch.cuda.empty_cache()  # for the next teacher, and for the student
        return postponed

    def load(self, teacher: TeacherStores, views: Sequence[int]) -> Teacher:
        """Return the teacher on its device, after writing manifests and checking disk space."""
        loaded = ready_for_computing(teacher.load(), self.options)
        new = {tensor: store for tensor, store in teacher.stores.items() if store.manifest() is None}
        if new:
            one = compute_shard(loaded, self.split, self.augment, views[0], range(1), self.options)
            facts = teacher.facts(loaded)
            for tensor, store in new.items():
                with writing(self.root):
                    store.begin(tuple(one.tensors[tensor].shape[1:]), facts, self.options.about())
        size = 0
        for store, view in itertools.product(teacher.stores.values(), views):
            rows = sum(len(store.rows_of(number)) for number in store.missing(view))
            size += rows * stored_bytes(store.shape or (), store.storage)
        refuse_full_disk(self.root, {teacher.name: size})
        return loaded

    def build_view(
        self, teacher: TeacherStores, loaded: Teacher, view: int, missing: Mapping[str, Sequence[int]]
    ) -> None:
        """Compute and write the missing shards of a view, and sum its hints."""
        lacking: dict[range, dict[str, int]] = {}  # by rows: an older store may have shards of another length
        for tensor, numbers in missing.items():
            for number in numbers:
                lacking.setdefault(teacher.stores[tensor].rows_of(number), {})[tensor] = number
        self.progress.restart_clock()
        for rows in sorted(lacking, key=lambda rows: (rows.start, rows.stop)):
            advance = self.progress.advance
            shard = compute_shard(loaded, self.split, self.augment, view, rows, self.options, advance)
            for tensor, number in lacking[rows].items():
                store = teacher.stores[tensor]
                encoded = shard.encoded(tensor, store.storage)
                if tensor == "logits" and store.storage == "float16":
                    self.warn_of_rounding(teacher.name, shard.tensors[tensor], encoded["values"])
                with writing(self.root):
                    store.write(view, number, encoded, shard.pixels)
        for tap in teacher.summed:
            view_statistics(teacher.hints[tap], view)

    def warn_of_rounding(self, teacher: str, logits: Tensor, stored: Tensor) -> None:
        """Warn once of a teacher whose probabilities change much by rounding to float16."""
        error = probability_error(logits, stored)
        if error > LARGE_ERROR and teacher not in self.warned:
            self.warned.add(teacher)
            what = (
                "Storing the logits of teacher %s in float16 changes its probabilities by %.2g %% on average."
            )
            log.warning(f"{what} Store them in float32: cache.logits=float32", teacher, 100 * error)

    @contextmanager
    def locked(self, teacher: TeacherStores, view: int) -> Iterator[bool]:
        """Lock a view of a teacher's stores; yield False if another process has a lock.

        The system frees the lock of a process that has died: a lock file that is left is not a held lock.
        """
        folder = self.root / LOCKS
        files = sorted(folder / f"{lock_name(s.folder)}-{view}.lock" for s in teacher.stores.values())
        with ExitStack() as held:
            with writing(self.root):
                folder.mkdir(parents=True, exist_ok=True)
                try:
                    for file in files:
                        held.enter_context(FileLock(file, timeout=0))
                    free = True
                except Timeout:
                    held.close()
                    free = False
            yield free
