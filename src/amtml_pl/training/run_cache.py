"""Cached teacher outputs of one run: which it needs, and building the missing ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from amtml_pl.data.augment import as_floats
from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.splits import SplitRows
from amtml_pl.distill.doctor.teachers import examine_teacher, images_to_examine
from amtml_pl.errors import UserError
from amtml_pl.models.hint import HintSpec
from amtml_pl.models.hint_statistics import HintStatistics
from amtml_pl.runs.record import CacheUse
from amtml_pl.system.console import console
from amtml_pl.teachers.cache.build import BuildStats, build_stores
from amtml_pl.teachers.cache.catalogue import ExaminedTeacher, TeacherExamination, folder_bytes, nearest_store
from amtml_pl.teachers.cache.disk import refuse_full_disk
from amtml_pl.teachers.cache.statistics import run_statistics
from amtml_pl.teachers.cache.storage import Storage, stored_bytes
from amtml_pl.teachers.cache.store import SHARD_ROWS, TensorStore
from amtml_pl.teachers.cache.teacher_stores import TeacherStores, all_stores
from amtml_pl.teachers.cache.trust import probe, probe_every_shard, verify_checksums
from amtml_pl.teachers.live import Teacher
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.settings import Settings
from amtml_pl.types import Shape, SplitName

Accuracy = Mapping[str, Mapping[str, float]]  # in [0, 1], by teacher and split


class RunCache:
    """Stores that a run reads, in the order of its teachers.

    Those of validation and test hold only the logits of images without augmentation.

    Attributes:
        trusted: views that this process has compared with their checksums.
    """

    def __init__(
        self,
        settings: Settings,
        teachers: Sequence[SelectedTeacher],
        data: PackedDataModule,
        accuracy: Accuracy,
        split: SplitName = "train",
    ) -> None:
        self.options, self.data, self.root = settings.cache, data, settings.cache.root
        self.split, self.may_build = data.split(split), settings.prepare
        self.teachers = tuple(
            teacher_stores(settings, teacher, data, self.split, accuracy.get(teacher.name, {}))
            for teacher in teachers
        )
        self.stores = all_stores(self.teachers)
        epochs = range(settings.trainer.epochs)
        self.views = sorted({data.train_view(epoch) for epoch in epochs}) if split == "train" else [0]
        self.trusted: set[int] = set()

    def missing(self) -> list[int]:
        """Return the views that are not complete."""
        return [view for view in self.views if not all(store.is_complete(view) for store in self.stores)]

    def complete(self) -> list[int]:
        """Return the views that are complete."""
        missing = set(self.missing())
        return [view for view in self.views if view not in missing]

    def bytes_on_disk(self) -> int:
        """Return the size of all stores."""
        return sum(folder_bytes(store.folder) for store in self.stores)

    def hint_shapes(self) -> dict[str, Shape] | None:
        """Return (C, H, W) per hint by flat name; None before every store is begun."""
        hints = [(f"{t.name}/{tap}", store) for t in self.teachers for tap, store in t.hints.items()]
        shapes: dict[str, Any] = {name: store.shape for name, store in hints}
        return None if any(store.shape is None for store in self.stores) else shapes

    def examined(self) -> dict[str, ExaminedTeacher]:
        """Return the facts in the manifest of each teacher whose outputs have been built."""
        manifests = {teacher.name: teacher.logits.manifest() for teacher in self.teachers}
        return {name: manifest.facts for name, manifest in manifests.items() if manifest is not None}

    def statistics(self) -> dict[str, HintStatistics]:
        """Return statistics over all views of the run, by hint that needs them."""
        return {
            f"{teacher.name}/{tap}": run_statistics(teacher.hints[tap], self.views)
            for teacher in self.teachers
            for tap in teacher.summed
        }

    def nearest(self) -> str | None:
        """Explain why an existing cache does not fit this run; None without one."""
        for store in self.stores:
            if store.shape is None and (sentence := nearest_store(store.fingerprint, store.folder)):
                return sentence
        return None

    def check(self) -> None:
        """Raise a UserError if existing outputs differ from their checksums or pixels."""
        verify_checksums(self.teachers, self.views, console)
        if rows := self.options.probe:
            probe(self.teachers, self.split, self.data.augment, self.views, rows)
        self.trusted.update(self.complete())

    def refuse_full_disk(self, hints: Mapping[str, Shape]) -> None:
        """Raise a UserError, before computing, if missing outputs do not fit on disk."""
        needed = dict.fromkeys((teacher.name for teacher in self.teachers), 0)
        for teacher in self.teachers:
            for tensor, store in teacher.stores.items():
                shape = hints.get(f"{teacher.name}/{tensor}", (self.data.num_classes,))
                rows = sum(len(store.rows_of(shard)) for view in self.views for shard in store.missing(view))
                needed[teacher.name] += rows * stored_bytes(shape, store.storage)
        refuse_full_disk(self.root, needed)

    def provide(self, views: Iterable[int]) -> BuildStats:
        """Compute missing outputs of these views, then verify their checksums.

        Raises:
            UserError: if outputs are missing with ``prepare=false``, or are damaged.
        """
        wanted = sorted(set(views) & set(self.views) - self.trusted)  # others may have built them
        if not self.may_build and (missing := set(wanted) & set(self.missing())):
            raise UserError(
                f"The cache {self.root} has no teacher outputs for view {min(missing)} of the "
                f"{self.split.name} split, and prepare=false forbids computing them.",
                fix="pass prepare=true, or run python -m amtml_pl.cache action=build with the same overrides",
            )
        augment = self.data.augment
        options = self.options.build
        built = build_stores(self.teachers, self.split, augment, wanted, self.root, options, console)
        verify_checksums(self.teachers, wanted, console)
        if self.options.probe:
            probe_every_shard(self.teachers, self.split, augment, wanted)
        self.trusted.update(wanted)
        return built

    def note_use(self, run: Path | None, command: str) -> None:
        """Note in every store that a run uses it, for ``action=info`` and ``action=gc``."""
        for store in self.stores:
            store.note_use(run, command)

    def usage(self, computed: Mapping[str, int]) -> CacheUse:
        """Return the cache's entry in the run's record."""
        views = [store.record(view) for store in self.stores for view in self.views]
        return CacheUse(
            views=len(self.views),
            # Of this run's shards alone: what other runs add to a store does not count.
            bytes=sum(shard.bytes for shards in views for shard in shards.values()),
            stores=tuple(str(store.folder.relative_to(self.root)) for store in self.stores),
            teacher_passes={name: rows / len(self.split) for name, rows in computed.items()},
        )


def teacher_stores(
    settings: Settings,
    teacher: SelectedTeacher,
    data: PackedDataModule,
    split: SplitRows,
    accuracy: Mapping[str, float],
) -> TeacherStores:
    """Return a teacher's stores for a split; only the training split has augmentation and hints."""
    options, identity = settings.cache, teacher.identity()
    common = {
        "data": {"digest": data.digest},
        "split": {"name": split.name, "size": len(split), "rows": split.digest},
        "augment": data.augment.identity() if split.name == "train" else None,
        "teacher": identity,
        "cache": {"precision": options.build.precision},
    }

    def store(tensor: str, pool: int | None, storage: Storage) -> TensorStore:
        about = {"name": tensor, "pool": pool} | ({} if tensor == "logits" else vars(teacher.options.reading))
        causes = {**common, "tensor": about}
        return TensorStore(
            options.root, teacher.name, tensor=tensor, split=split.name, rows=len(split), causes=causes,
            storage=storage, shard_rows=SHARD_ROWS,
        )  # fmt: skip

    def load() -> Teacher:
        loaded = teacher.load()
        teacher.refuse_random(loaded)
        if teacher.identity() != identity:
            raise UserError(
                f"The network weights of teacher {teacher.name!r} have changed since this command began. The "
                "outputs that this command has stored belong to the old network weights.",
                fix="repeat the command",
            )
        return loaded

    def facts(loaded: Teacher) -> ExaminedTeacher:
        known = teacher.facts(loaded).replaced(accuracy=dict(accuracy))
        return ExaminedTeacher(**dict(known), examination=examination(settings, teacher, loaded, data))

    return TeacherStores(
        name=teacher.name,
        logits=store("logits", None, options.logits),
        hints={
            tap: store(tap, None if HintSpec.parse(tap).reduction else teacher.options.pool, options.hints)
            for tap in (teacher.hints if split.name == "train" else ())
        },
        load=load,
        facts=facts,
        summed=summed_hints(settings, teacher.name) if split.name == "train" else (),
    )


def summed_hints(settings: Settings, teacher: str) -> tuple[str, ...]:
    """Return a teacher's hints whose statistics a term of the run needs."""
    wanted = [
        name for term in settings.method.terms().values() for name in term.summed_hints(settings.offered)
    ]
    pairs = (name.split("/", 1) for name in dict.fromkeys(wanted))
    return tuple(tap for owner, tap in pairs if owner == teacher)


def examination(
    settings: Settings, selected: SelectedTeacher, teacher: Teacher, data: PackedDataModule
) -> TeacherExamination | None:
    """Examine a teacher on random validation images of classes that it knows; None without logits.

    Without a validation split, these are training images, without augmentation.
    Other normalisations are tried only on a teacher with weights from elsewhere. A recipe's teacher was
    trained on the data's own.
    """
    if selected.options.head == "none":
        return None
    split = data.split("val" if data.has_validation else "train")
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))  # rows may be by class
    rows = split.rows[order]
    if (known := teacher.known_classes) is not None:
        rows = rows[torch.isin(split.stored.labels[rows], torch.tensor(known))]
    some = rows[: images_to_examine(data.num_classes)]
    images, labels = as_floats(split.stored.images[some]), split.stored.labels[some]
    others = {"dataset.mean and dataset.std": (settings.dataset.mean, settings.dataset.std)}
    return examine_teacher(teacher, images, labels, others if selected.has_own_weights else None)
