"""One run from its plan to its record; a teacher that has to be trained first is a run of its own."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path

import pytorch_lightning as pl
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback

from amtml_pl.config.paths import packed_root_of
from amtml_pl.config.teacher_recipe import recipe
from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import find_packed, pack
from amtml_pl.distill.compatibility import TeacherSource
from amtml_pl.distill.doctor.report import Checkup, check_up, warn
from amtml_pl.models.layout import device_for
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord, TeacherFacts, Timing
from amtml_pl.system.checkpoint_file import read_checkpoint
from amtml_pl.system.collectives import (
    decided_by_leader,
    from_leader,
    leader_first,
    lost_connections_told,
    meet,
)
from amtml_pl.system.console import console
from amtml_pl.system.files import write_text
from amtml_pl.system.launch import run_alone
from amtml_pl.system.ranks import leads, world_size
from amtml_pl.system.records import write_record
from amtml_pl.system.signals import StopRequest
from amtml_pl.teachers.cache.serve import CachedTeachers
from amtml_pl.teachers.live import LiveTeachers, Teacher, check_accuracy, measured_accuracy
from amtml_pl.teachers.selected import SelectedTeacher, names, selected_teachers
from amtml_pl.training import assemble
from amtml_pl.training.callbacks import epochs_in
from amtml_pl.training.consistency import check_classes, refuse_other_pixels, refuse_other_teachers
from amtml_pl.training.dashboard.callback import Dashboard
from amtml_pl.training.dashboard.subject import Subject
from amtml_pl.training.plan import held_out_step, make_plan, refuse_missing, show_plan
from amtml_pl.training.prepare_teachers import Provision, held_out_config
from amtml_pl.training.record import describe
from amtml_pl.training.summary import show_summary
from amtml_pl.training.sweep.jobs import current
from amtml_pl.training.teacher_cache import RunCache, found_cache
from amtml_pl.training.trainer import (
    evaluate,
    explained,
    interruptible,
    make_trainer,
    save_weights,
    weights_of_last_epoch,
)
from amtml_pl.types import Shape, SplitName

log = logging.getLogger(__name__)

ARTIFACTS = {
    "best_checkpoint": "checkpoints/best.ckpt",
    "last_checkpoint": "checkpoints/last.ckpt",
    "student": "student.safetensors",
    "metrics": "metrics.csv",
}


def execute(config: DictConfig, folder: RunFolder, experiment: str | None, command: str) -> RunRecord:
    """A run from plan to record, in a folder that no other process works in.

    Returns:
        What ``run.json`` says of the completed run.
    """
    meet()
    with lost_connections_told(), sole_use(folder):
        if record := decided_by_leader(lambda: completed_before(config, folder)):
            return record
        run = Run(config, folder, experiment, command)
        decided_by_leader(lambda: clear_before(config, folder))
        return run.complete()


@contextmanager
def sole_use(folder: RunFolder) -> Iterator[None]:
    """Inside, no other run works in the folder; it is waited for. A run's first process holds the lock."""
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock_file)
    with leader_first():
        if leads():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.warning("Waiting for another process that works in %s", folder.path)
                lock.acquire()
    try:
        yield
    finally:
        lock.release()


def completed_before(config: DictConfig, folder: RunFolder) -> RunRecord | None:
    """The record of a run that the command has completed."""
    record = None if config.force else folder.completed()
    if record is not None:
        refuse_other_pixels(record, packed_digest(config), folder)
        folder.refuse_changed(record, *folder.tables, *filter(Path.exists, folder.weights))
        console.print(f"Already completed: {folder.path} (force=true starts over)", markup=False)
        show_summary(record, folder.path, with_next_commands=asked_for_alone(config))
        return record
    return None


def clear_before(config: DictConfig, folder: RunFolder) -> None:
    """Remove what an earlier run has left, where this one starts over; only once all else fits together."""
    if config.force or config.resume == "never":
        folder.clear()


class Run:
    """One run: what is assembled once and used by its steps.

    Args:
        config: the checked configuration.
        folder: where everything is kept.
        experiment: the experiment's name.
        command: what repeats the run.

    Raises:
        UserError: if the networks, taps and class counts do not fit together.
    """

    def __init__(self, config: DictConfig, folder: RunFolder, experiment: str | None, command: str) -> None:
        self.config, self.folder, self.experiment, self.command = config, folder, experiment, command
        self.source = assemble.dataset_source(config)
        terms = assemble.loss_terms(config)
        self.teachers = selected_teachers(config, terms)
        self.cached = bool(self.teachers) and config.teacher_source == "cached"
        self.cache = self.found_cache("train") if self.cached else None
        teachers, self.hints = self.teacher_source()
        pl.seed_everything(config.seed, verbose=False)
        self.module = assemble.training_module(config, terms, teachers, self.hints)
        self.accuracy: dict[str, dict[str, float]] = {teacher.name: {} for teacher in self.teachers}
        self.gradient_share: Mapping[str, float] = {}

    def found_cache(self, split: SplitName) -> RunCache | None:
        """The run's stores for a split, where images and weights are here already."""
        config = self.config if split == "train" else held_out_config(self.config)
        return found_cache(config, self.source, packed_root_of(config), self.teachers, split)

    def teacher_source(self) -> tuple[TeacherSource | None, dict[str, Shape]]:
        """Where the teachers' outputs will come from, and the shape of every hint.

        Live teachers are built here and get their weights later. For a cached run one teacher after the
        other is built, looked at and dropped; none where the cache knows the shapes.

        Raises:
            UserError: if a tap does not exist, the classes do not fit, or a file's weights do not.
        """
        if not self.teachers:
            return None, {}
        source = CachedTeachers(names(self.teachers), self.config.cache.device) if self.cached else None
        if source is not None and self.cache is not None and (known := self.cache.hint_shapes()) is not None:
            return source, known
        live: list[Teacher] = []
        hints: dict[str, Shape] = {}
        for selected in self.teachers:
            teacher = selected.fresh()
            teacher.check_classes(self.config.dataset.num_classes, self.config.dataset.image_size)
            if selected.has_own_weights:  # read first: what does not fit must not cost an hour
                selected.load_weights(teacher)
            hints |= teacher.hint_shapes(self.config.dataset.image_size)
            if source is None:
                live.append(teacher)
        return source or LiveTeachers(live), hints

    def complete(self) -> RunRecord:
        """Plan, preparation, training, test, record."""
        with leader_first():
            data = self.prepare()
        facts = self.provide_outputs(data)
        with leader_first():
            if self.config.doctor and leads():
                self.examine(data).refuse()
        if half_done := self.folder.record():
            refuse_other_teachers(half_done, facts, self.folder)
        if leads():
            settings = OmegaConf.to_yaml(with_absolute_paths(self.config), resolve=True)
            write_text(self.folder.config_file, settings)
        about = describe(self.config, self.experiment, self.command, self.module, facts, data)
        self.folder.write_record(about)  # the truth about a run that is killed from here on
        try:
            with explained(self.folder), lost_connections_told():
                metrics, timing = self.fit_and_test(data, about)
        except Exception as error:
            with suppress(OSError):  # a full disk is full for this record too; it says interrupted already
                self.folder.write_record(about.replaced(status="failed", error=str(error) or repr(error)))
            raise
        cache = None if self.cache is None else self.cache.describe(self.module.passes_of_all_ranks())

        def completed() -> RunRecord:
            self.folder.write_record(
                about.replaced(
                    status="completed",
                    metrics=metrics,
                    timing=timing,
                    cache=cache,
                    artifacts=ARTIFACTS,
                    files=self.folder.seal(),
                )
            )
            return self.folder.completed() or about

        record = decided_by_leader(completed)
        show_summary(record, self.folder.path, with_next_commands=asked_for_alone(self.config))
        return record

    def prepare(self) -> PackedDataModule:
        """Says what is missing, then packs the data and trains the teachers, all but the cache."""
        held_out = self.found_cache("val") if self.module.needs_held_out else None
        plan = make_plan(
            self.config,
            self.source,
            self.module.student,
            self.teachers,
            self.hints,
            self.cache,
            held_out_step(self.config, held_out) if self.module.needs_held_out else None,
            done=self.epochs_done(),
        )
        on_cpu = device_for(self.config.trainer.get("accelerator")).type == "cpu"
        show_plan(plan, f"Plan of {self.experiment or 'the run'}", on_cpu=on_cpu)
        if not self.config.prepare:
            refuse_missing(plan)
        packed = pack(self.source, packed_root_of(self.config))
        check_classes(self.config, packed)
        if half_done := self.folder.record():
            refuse_other_pixels(half_done, packed.digest, self.folder)
        data = assemble.data_module(self.config, packed)
        data.train_batches(
            0, 0, world_size()
        )  # what ranks cannot share is refused before teachers are trained
        for teacher in self.teachers:
            self.provide_teacher(teacher, data)
        return data

    def epochs_done(self) -> int:
        """Return how many epochs of an interrupted fit its last checkpoint holds."""
        if not self.folder.last_checkpoint.exists():
            return 0
        return epochs_in(read_checkpoint(self.folder.last_checkpoint))

    def provide_teacher(self, teacher: SelectedTeacher, data: PackedDataModule) -> None:
        """Trains a teacher by its own recipe where it has no weights yet, and gates its accuracy."""
        name = teacher.name
        node = self.config.teacher[name]
        if teacher.has_own_weights:
            self.accuracy[name]["val"] = self.measure_teacher(teacher, data, "val")
        else:
            record = teacher.record()
            if record is None:
                console.rule(f"teacher {name}", align="left")
                if world_size() == 1:
                    record = execute(recipe(self.config, name), teacher.folder, node.recipe, teacher.command)
                else:  # this process is one of several that train the student: the teacher has its own
                    run_alone(shlex.split(teacher.command)[1:])
                    record = teacher.trained()
            refuse_other_pixels(record, data.digest, teacher.folder)
            self.accuracy[name] = {split: record.metrics[f"{split}/acc"] for split in ("val", "test")}
        if node.min_accuracy is not None:
            check_accuracy(name, self.accuracy[name]["val"], node.min_accuracy)

    def provide_outputs(self, data: PackedDataModule) -> dict[str, TeacherFacts]:
        """Takes from the teachers what the run needs of them; returns what a record says of each."""
        user = self.folder.path, self.command
        self.provision = Provision(self.config, self.teachers, data, self.module, self.accuracy, user)
        self.cache = self.provision.cache
        return self.provision.provide(self.hints)

    def examine(self, data: PackedDataModule, *, thoroughly: bool = False) -> Checkup:
        """Holds the step that will be trained against what it claims, and the teachers against the labels.

        Args:
            data: the run's splits and views.
            thoroughly: whether live teachers, which no cache has examined, are examined too.
        """
        examined = self.provision.examinations(thoroughly=thoroughly)
        found = check_up(self.module, data, examined, list(self.config.expected_defects))
        self.gradient_share = found.gradient_share
        write_record(self.folder.doctor_file, found)
        warn(found)
        return found

    def fit_and_test(self, data: PackedDataModule, about: RunRecord) -> tuple[dict[str, float], Timing]:
        """Trains or resumes, selects on validation, then reads the test split once for best and last."""
        stop = StopRequest()
        trainer = make_trainer(self.config, self.folder, self.module, stop)
        dashboards = self.dashboards(trainer, data, about)
        resume = self.folder.last_checkpoint if from_leader(self.folder.last_checkpoint.exists()) else None
        if resume is not None:
            read_checkpoint(resume, self.module.state_dict())  # what is damaged is refused in words
            console.print(f"Resuming from {resume}", markup=False)
        with interruptible(trainer):
            with stop.heard():
                trainer.fit(self.module, datamodule=data, ckpt_path=resume, weights_only=True)
            spent = self.module.spent
            timing = Timing(
                fit_seconds=spent.fit_seconds,
                images_per_second=spent.images_seen / spent.fit_seconds,
                teacher_seconds=spent.teacher_seconds,
                cache_build_seconds=spent.cache_build_seconds,
            )
            trainer.loggers = []  # the two evaluations belong into the record, not on the training curves
            last = evaluate(trainer, self.module, data, self.folder.last_checkpoint)
            best = evaluate(trainer, self.module, data, self.folder.best_checkpoint)
        with leader_first():
            if leads():
                save_weights(self.module.student, self.folder.weights_file)
            for teacher in self.teachers:
                if teacher.has_own_weights:
                    self.accuracy[teacher.name]["test"] = self.measure_teacher(teacher, data, "test")
        taught = {
            f"teacher/{name}/{split}/acc": accuracy
            for name, by_split in self.accuracy.items()
            for split, accuracy in by_split.items()
        }
        weighed = weights_of_last_epoch(self.folder.metrics_file)
        metrics = {**best, **{f"{name}_last": value for name, value in last.items()}, **taught, **weighed}
        for dashboard in dashboards:
            dashboard.conclude(trainer, self.module, metrics, timing.model_dump())
        return metrics, timing

    def dashboards(self, trainer: pl.Trainer, data: PackedDataModule, about: RunRecord) -> list[Dashboard]:
        """What will look at the fit, told of the run; of several processes the first one's."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        found = [callback for callback in callbacks if isinstance(callback, Dashboard) and leads()]
        for dashboard in found:
            dashboard.subject = Subject(
                about=about,
                classes=data.classes,
                image_size=data.image_size,
                temperature=self.config.temperature,
                mixture=self.config.mixture,
                lr=self.config.optimizer.get("lr"),
                accuracy=self.accuracy,
                held_out=self.provision.held_out_logits() if self.teachers else None,
                gradient_share=self.gradient_share,
            )
        return found

    def measure_teacher(self, teacher: SelectedTeacher, data: PackedDataModule, split: str) -> float:
        """Accuracy of a teacher with weights of its own, measured once and kept beside the teachers."""
        rows = data.val_split() if split == "val" else data.test_split()
        images = {
            "digest": data.digest,
            "split": split,
            "seed": self.config.data.seed,
            "val_size": self.config.data.val_size,
        }
        measured = Path(self.config.paths.teachers) / "measured"
        identity = {"teacher": teacher.identity(), "data": images}
        return measured_accuracy(teacher.load, data.eval_batches(rows), measured, identity)


def asked_for_alone(config: DictConfig) -> bool:
    """Whether a run is neither one of a sweep's nor a teacher's."""
    return config.role == "student" and current.sweep is None


def packed_digest(config: DictConfig) -> str | None:
    """What identifies the pixels that are packed now; None where they are not."""
    packed = find_packed(assemble.dataset_source(config), packed_root_of(config))
    return None if packed is None else packed.digest


def with_absolute_paths(config: DictConfig) -> DictConfig:
    """The configuration with roots, images and teachers' weights that mean the same from any directory."""
    changed = deepcopy(config)
    for name, place in config.paths.items():
        changed.paths[name] = str(Path(place).resolve())
    if isinstance(folder := config.dataset.source.get("folder"), str):
        changed.dataset.source.folder = str(Path(folder).expanduser().resolve())
    for name, teacher in config.teacher.items():
        if teacher.weights.path is not None:
            changed.teacher[name].weights.path = str(Path(teacher.weights.path).resolve())
    return changed
