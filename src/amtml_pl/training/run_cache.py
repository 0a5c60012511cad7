"""Cached teacher outputs of one run: which it needs, and building the missing ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from amtml_pl.data.augment import as_floats
from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.splits import SplitRows
from amtml_pl.distill.doctor.teachers import examine_teacher, images_to_examine
from amtml_pl.errors import UserError
from amtml_pl.runs.record import CacheUse, TeacherFacts
from amtml_pl.system.console import console
from amtml_pl.teachers.cache.build import BuildStats, build_stores
from amtml_pl.teachers.cache.catalogue import ExaminedTeacher, TeacherExamination, nearest_store
from amtml_pl.teachers.cache.disk import refuse_full_disk
from amtml_pl.teachers.cache.storage import Storage, stored_bytes
from amtml_pl.teachers.cache.store import SHARD_ROWS, TensorStore
from amtml_pl.teachers.cache.teacher_stores import TeacherStores, all_stores
from amtml_pl.teachers.cache.trust import probe, probe_every_shard, verify_checksums
from amtml_pl.teachers.live import Teacher
from amtml_pl.teachers.selected import SelectedTeacher
from amtml_pl.training.settings import CacheOptions
from amtml_pl.types import Shape, SplitName


class RunCache:
    """Stores that a run reads, in the order of its teachers.

    Of validation and test these are the outputs for the images themselves, and logits only.

    Attributes:
        trusted: views that this process has compared with their checksums.
    """

    def __init__(
        self,
        options: CacheOptions,
        teachers: Sequence[SelectedTeacher],
        data: PackedDataModule,
        accuracy: Mapping[str, Mapping[str, float]],
        split: SplitName = "train",
    ) -> None:
        self.options, self.data, self.root = options, data, options.root
        self.split = data.split(split)
        self.teachers = tuple(
            teacher_stores(options, teacher, data, self.split, accuracy.get(teacher.name, {}))
            for teacher in teachers
        )
        views = {data.train_view(epoch) for epoch in range(options.epochs)} if split == "train" else {0}
        self.views = sorted(views)
        self.trusted: set[int] = set()

    def stores(self) -> list[TensorStore]:
        """Return every store, teacher by teacher."""
        return all_stores(self.teachers)

    def missing(self) -> list[int]:
        """Return the views that are not complete."""
        stores = self.stores()
        return [view for view in self.views if not all(store.is_complete(view) for store in stores)]

    def complete(self) -> list[int]:
        """Return the views that are complete."""
        missing = set(self.missing())
        return [view for view in self.views if view not in missing]

    def hint_shapes(self) -> dict[str, Shape] | None:
        """Return (C, H, W) per hint by flat name; None before every store is begun."""
        shapes: dict[str, Shape] = {}
        for teacher in self.teachers:
            if teacher.logits.shape is None:
                return None
            for tap, store in teacher.hints.items():
                if store.shape is None:
                    return None
                channels, height, width = store.shape
                shapes[f"{teacher.name}/{tap}"] = (channels, height, width)
        return shapes

    def facts(self) -> dict[str, TeacherFacts]:
        """Return the manifests' facts of each teacher, without its examination."""
        found = {name: facts.model_dump(exclude={"examination"}) for name, facts in self.examined().items()}
        return {name: TeacherFacts(**facts) for name, facts in found.items()}

    def examinations(self) -> dict[str, TeacherExamination]:
        """Return each teacher's examination from when its outputs were built."""
        return {name: facts.examination for name, facts in self.examined().items()}

    def examined(self) -> dict[str, ExaminedTeacher]:
        """Return the manifests' facts of each teacher whose outputs have been built."""
        manifests = {teacher.name: teacher.logits.manifest() for teacher in self.teachers}
        return {name: manifest.facts for name, manifest in manifests.items() if manifest is not None}

    def nearest(self) -> str | None:
        """Explain why an existing cache does not fit this run; None without one."""
        for store in self.stores():
            if store.shape is None and (sentence := nearest_store(store.identity, store.folder)):
                return sentence
        return None

    def check(self) -> None:
        """Compare existing outputs with checksums and pixels; a difference is a UserError."""
        verify_checksums(self.teachers, self.views, console)
        if rows := self.options.probe:
            probe(self.teachers, self.split, self.data.augment, self.views, rows)
        self.trust_what_is_there()

    def trust_what_is_there(self) -> None:
        """Mark all complete views as checked, by any process of the run."""
        self.trusted.update(self.complete())

    def refuse_full_disk(self, hints: Mapping[str, Shape]) -> None:
        """Raise a UserError, before computing, if missing outputs do not fit on disk."""
        needed: dict[str, int] = {}
        for teacher in self.teachers:
            for tensor, store in teacher.stores.items():
                shape = (
                    hints[f"{teacher.name}/{tensor}"] if tensor in teacher.hints else (self.data.num_classes,)
                )
                missing = [len(store.rows_of(shard)) for view in self.views for shard in store.missing(view)]
                size = sum(missing) * stored_bytes(shape, store.storage)
                needed[teacher.name] = needed.get(teacher.name, 0) + size
        refuse_full_disk(self.root, needed)

    def provide(self, views: Iterable[int]) -> BuildStats:
        """Compute missing outputs of these views, then verify their checksums."""
        wanted = sorted(set(views) & set(self.views) - self.trusted)  # others may have built them
        built = build_stores(
            self.teachers, self.split, self.data.augment, wanted, self.root, self.options.build, console
        )
        verify_checksums(self.teachers, wanted, console)
        if self.options.probe:
            probe_every_shard(self.teachers, self.split, self.data.augment, wanted)
        self.trusted.update(wanted)
        return built

    def note_use(self, run: Path | None, command: str) -> None:
        """Note in every store that a run uses it, for ``action=info`` and ``action=gc``."""
        for store in self.stores():
            store.note_use(run, command)

    def describe(self, computed: Mapping[str, int]) -> CacheUse:
        """Return the cache's entry in the run's record."""
        size = len(self.split)
        views = [store.record(view) for store in self.stores() for view in self.views]
        return CacheUse(
            views=len(self.views),
            # Of this run's shards alone: what other runs add to a store does not count.
            bytes=sum(shard.bytes for shards in views for shard in shards.values()),
            stores=tuple(str(store.folder.relative_to(self.root)) for store in self.stores()),
            teacher_passes={name: rows / size for name, rows in computed.items()},
        )


def exact(options: CacheOptions) -> CacheOptions:
    """Return options that keep outputs exactly as live teachers give them."""
    return replace(options, logits="float32", build=replace(options.build, precision="float32"))


def teacher_stores(
    options: CacheOptions,
    teacher: SelectedTeacher,
    data: PackedDataModule,
    split: SplitRows,
    accuracy: Mapping[str, float],
) -> TeacherStores:
    """Return a teacher's stores for a split; only the training split has augmentation and hints."""
    taps = teacher.hints if split.name == "train" else ()
    augment = data.augment.identity() if split.name == "train" else None
    common = {
        "data": {"digest": data.digest},
        "split": {"name": split.name, "size": len(split), "rows": split.digest},
        "augment": augment,
        "teacher": teacher.identity(),
        "cache": {"precision": options.build.precision},
    }

    def store(tensor: str, pool: int | None, storage: Storage) -> TensorStore:
        fingerprint = {**common, "tensor": {"name": tensor, "pool": pool}}
        return TensorStore(
            options.root, teacher.name, tensor, split.name, len(split), fingerprint, storage, SHARD_ROWS
        )

    identity = common["teacher"]

    def load() -> Teacher:
        loaded = teacher.load()
        if not teacher.is_as_constructed(loaded):
            raise UserError(
                f"The constructor of teacher {teacher.name!r} gives other weights each time, and a cache can "
                "only keep what one set of weights gives.",
                fix=f"save them once and name the file: teacher.{teacher.name}.weights.path=FILE, or "
                "teacher_source=live",
            )
        if teacher.identity() != identity:
            raise UserError(
                f"The weights of teacher {teacher.name!r} have changed since this command began: the outputs "
                "that it has stored so far are of the old ones.",
                fix="repeat the command",
            )
        return loaded

    def facts(loaded: Teacher) -> ExaminedTeacher:
        examined = examination(teacher, loaded, data, options.normalisation)
        known = teacher.facts(loaded).replaced(accuracy=dict(accuracy))
        return ExaminedTeacher(**dict(known), examination=examined)

    return TeacherStores(
        name=teacher.name,
        logits=store("logits", None, options.logits),
        hints={tap: store(tap, teacher.node["pool"], options.hints) for tap in taps},
        load=load,
        facts=facts,
    )


def examination(
    selected: SelectedTeacher,
    teacher: Teacher,
    data: PackedDataModule,
    normalisation: tuple[list[float], list[float]],
) -> TeacherExamination:
    """Examine a teacher that has its weights, on images of the validation split.

    One that its recipe has trained saw images as it sees them now, and has the data's own classes.
    """
    split = data.split("val")
    wanted = images_to_examine(data.num_classes)
    # Rows may be sorted by class.
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    some = split.rows[order[:wanted]]
    images, labels = as_floats(split.stored.images[some]), split.stored.labels[some]
    others = {"the data set's": normalisation}
    return examine_teacher(teacher, images, labels, others if selected.has_own_weights else None)
