"""Fit the linear classifiers of teachers without one, on cached features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from filelock import FileLock

from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.system.console import console
from amtml_pl.teachers.cache.build import BuildStats, build_stores
from amtml_pl.teachers.cache.catalogue import ExaminedTeacher
from amtml_pl.teachers.cache.store import SHARD_ROWS, TensorStore
from amtml_pl.teachers.cache.teacher_stores import TeacherStores
from amtml_pl.teachers.linear_head import Labelled, fit_head, read_head, write_head
from amtml_pl.teachers.live import Teacher
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.settings import Settings


def provide_heads(
    teachers: Sequence[SelectedTeacher], data: PackedDataModule, settings: Settings
) -> BuildStats:
    """Fit the missing classifiers, and return the cost of their features."""
    built = [provide_head(t, data, settings) for t in teachers if t.options.head == "linear"]
    passes = sum((each.teacher_passes for each in built), Counter[str]())
    return BuildStats(passes, sum(each.seconds for each in built))


def provide_head(teacher: SelectedTeacher, data: PackedDataModule, settings: Settings) -> BuildStats:
    """Fit a teacher's classifier unless a run has fitted it; one process at a time."""
    if (identity := teacher.head_identity()) is None:
        what = f"The network weights of teacher {teacher.name!r} do not exist."
        raise UserError(what, fix=f"set teacher.{teacher.name}.weights.path to an existing file")
    file = teacher.heads.file(teacher.name, identity)
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if read_head(file) is not None:
            return BuildStats(Counter(), 0.0)
        console.print(f"fitting the linear head of teacher {teacher.name}", markup=False)
        train, cost = features_of(teacher, data.split("train"), data, settings)
        val, beside = features_of(teacher, data.split("val"), data, settings)
        linear, accuracy, C = fit_head(train, val, teacher.heads.classes)
        write_head(file, linear, accuracy, C, identity)
    # As elsewhere, only passes over training images are counted.
    return BuildStats(cost.teacher_passes, cost.seconds + beside.seconds)


def features_of(
    teacher: SelectedTeacher, split: SplitRows, data: PackedDataModule, settings: Settings
) -> tuple[Labelled, BuildStats]:
    """Return the features of a split's images without augmentation, computed once, and their cost."""
    store = TensorStore(
        settings.cache.root,
        teacher.name,
        tensor="features",
        split=split.name,
        rows=len(split),
        causes={
            "data": {"digest": data.digest},
            "split": {"name": split.name, "size": len(split), "rows": split.digest},
            "augment": None,
            "teacher": teacher.backbone_identity(),
            "tensor": {"name": "features", "of": teacher.features},
        },
        storage="float32",
        shard_rows=SHARD_ROWS,
    )

    def load() -> Teacher:
        loaded = teacher.fresh()
        teacher.load_weights(loaded)
        teacher.refuse_random(loaded)
        return loaded

    def facts(loaded: Teacher) -> ExaminedTeacher:
        return ExaminedTeacher(**dict(teacher.facts(loaded)), examination=None)

    # The features are in the place of the logits: a head that is not fitted returns them.
    stores = TeacherStores(teacher.name, store, {}, load, facts)
    exact = replace(settings.cache.build, precision="float32")
    built = build_stores([stores], split, data.augment, [0], settings.cache.root, exact, console)
    store.verify(0)
    return Labelled(store.open(0).whole(), split.stored.labels[split.rows]), built
