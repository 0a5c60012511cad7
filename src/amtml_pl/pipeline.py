"""One run from its plan to its record; a teacher that has to be trained first is a run of its own."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.trainer.states import TrainerStatus
from safetensors.torch import save

from amtml_pl import assemble
from amtml_pl.callbacks import AtomicCheckpointIO, run_callbacks
from amtml_pl.data import PackedDataModule
from amtml_pl.entry_point import console
from amtml_pl.errors import UserError
from amtml_pl.features import TappedNetwork
from amtml_pl.packing import PackedDataset, is_packed, pack, packed_folder
from amtml_pl.plan import (
    make_plan,
    packed_root_of,
    refuse_missing,
    show_plan,
    teacher_command,
    teacher_folder,
)
from amtml_pl.provenance import describe
from amtml_pl.recipe import has_own_weights, recipe
from amtml_pl.runs import RunFolder, write_text
from amtml_pl.summary import show_summary
from amtml_pl.teacher_weights import load_weights
from amtml_pl.teachers import Teacher, check_accuracy, measured_accuracy

log = logging.getLogger(__name__)


def execute(config: DictConfig, folder: RunFolder, experiment: str | None, command: str) -> dict[str, Any]:
    """A run from plan to record, in a folder that no other process works in.

    Returns:
        What ``run.json`` says of the completed run.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.path / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("Waiting for another process that works in %s", folder.path)
        lock.acquire()
    try:
        if config.force:
            folder.clear()
        elif record := folder.completed():
            refuse_other_pixels(record, packed_digest(config), folder)
            console.print(f"Already completed: {folder.path} (force=true starts over)")
            show_summary(record, folder.path)
            return record
        return Run(config, folder, experiment, command).complete()
    finally:
        lock.release()


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
        self.teacher_networks = assemble.teacher_networks(config, terms)
        teachers = assemble.frozen_teachers(config, self.teacher_networks)
        self.teachers = () if teachers is None else teachers.teachers
        for teacher in self.teachers:
            if has_own_weights(config, teacher.name):  # read first: what does not fit must not cost an hour
                load_own_weights(config, teacher)
        pl.seed_everything(config.seed, verbose=False)
        self.module = assemble.distill_module(config, terms, teachers)
        self.teacher_metrics: dict[str, float] = {}

    def complete(self) -> dict[str, Any]:
        """Plan, preparation, training, test, record."""
        plan = make_plan(self.config, self.source, self.module.student, self.teacher_networks)
        show_plan(plan, f"Plan of {self.experiment or 'the run'}")
        if not self.config.prepare:
            refuse_missing(plan)
        packed = pack(self.source, packed_root_of(self.config))
        check_classes(self.config, packed)
        if half_done := self.folder.record():
            refuse_other_pixels(half_done, packed.digest, self.folder)
        data = assemble.data_module(self.config, packed)
        for teacher in self.teachers:
            self.provide_teacher(teacher, data)
        write_text(self.folder.config_file, OmegaConf.to_yaml(with_absolute_paths(self.config), resolve=True))
        about = describe(self.config, self.experiment, self.command, self.module.student, self.teachers, data)
        self.folder.write_record("interrupted", **about)  # the truth about a run that is killed from here on
        try:
            metrics, timing = self.fit_and_test(data)
        except Exception as error:
            self.folder.write_record("failed", **about, error=str(error) or repr(error))
            raise
        artifacts = {
            "best_checkpoint": "checkpoints/best.ckpt",
            "last_checkpoint": "checkpoints/last.ckpt",
            "student": self.folder.weights_file.name,
            "metrics": self.folder.metrics_file.name,
        }
        self.folder.write_record("completed", **about, metrics=metrics, timing=timing, artifacts=artifacts)
        record = self.folder.completed() or {}
        show_summary(record, self.folder.path)
        return record

    def provide_teacher(self, teacher: Teacher, data: PackedDataModule) -> None:
        """Trains a teacher by its own recipe where it has no weights yet, and gates its accuracy."""
        name = teacher.name
        node = self.config.teacher[name]
        if has_own_weights(self.config, name):
            accuracy = self.measure_teacher(teacher, data, "val")
        else:
            own = recipe(self.config, name)
            folder = teacher_folder(self.config, name, own)
            record = folder.completed()
            if record is None:
                console.rule(f"teacher {name}", align="left")
                record = execute(own, folder, node.recipe, teacher_command(self.config, name))
            refuse_other_pixels(record, data.digest, folder)
            load_weights(teacher.network.network, folder.weights_file)
            accuracy = record["metrics"]["val/acc"]
            self.teacher_metrics[f"teacher/{name}/test/acc"] = record["metrics"]["test/acc"]
        self.teacher_metrics[f"teacher/{name}/val/acc"] = accuracy
        if node.min_accuracy is not None:
            check_accuracy(name, accuracy, node.min_accuracy)

    def fit_and_test(self, data: PackedDataModule) -> tuple[dict[str, float], dict[str, float]]:
        """Trains or resumes, selects on validation, then reads the test split once for best and last."""
        trainer = self.trainer()
        resume = self.folder.last_checkpoint if self.folder.last_checkpoint.exists() else None
        if resume is not None:
            console.print(f"Resuming from {resume}")
        with interruptible(trainer):
            trainer.fit(self.module, datamodule=data, ckpt_path=resume, weights_only=True)
            timing = {
                "fit_seconds": self.module.fit_seconds,
                "images_per_second": self.module.images_seen / self.module.fit_seconds,
                "teacher_seconds": self.module.teacher_seconds,
                "cache_build_seconds": 0.0,
            }
            trainer.loggers = []  # the two evaluations belong into the record, not on the training curves
            last = evaluate(trainer, self.module, data, self.folder.last_checkpoint)
            best = evaluate(trainer, self.module, data, self.folder.best_checkpoint)
        save_weights(self.module.student, self.folder.weights_file)
        for teacher in self.teachers:
            if has_own_weights(self.config, teacher.name):
                accuracy = self.measure_teacher(teacher, data, "test")
                self.teacher_metrics[f"teacher/{teacher.name}/test/acc"] = accuracy
        metrics = {**best, **{f"{name}_last": value for name, value in last.items()}, **self.teacher_metrics}
        return metrics, timing

    def trainer(self) -> pl.Trainer:
        """Lightning's trainer with this project's loggers, checkpoints and table of epochs."""
        loggers = [
            assemble.build(node, partial=True)(save_dir=self.folder.path)
            for node in self.config.get("logger", {}).values()
        ]
        make = assemble.build(self.config.trainer, partial=True)
        trainer: pl.Trainer = make(
            logger=loggers,
            callbacks=run_callbacks(self.folder),
            plugins=[AtomicCheckpointIO()],
            default_root_dir=self.folder.path,
            enable_progress_bar=console.is_terminal,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the data module's sampler knows ranks and epochs itself
            reload_dataloaders_every_n_epochs=1,
        )
        return trainer

    def measure_teacher(self, teacher: Teacher, data: PackedDataModule, split: str) -> float:
        """Accuracy of a teacher with weights of its own, measured once and kept beside the teachers."""
        rows = data.val_split() if split == "val" else data.test_split()
        identity = {
            "digest": data.digest,
            "split": split,
            "seed": self.config.data.seed,
            "val_size": self.config.data.val_size,
        }
        measured = Path(self.config.paths.teachers) / "measured"
        return measured_accuracy(teacher, data.eval_batches(rows), measured, identity)


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt again, which Lightning turns into an exit with status 1."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, handler)


def evaluate(
    trainer: pl.Trainer, module: pl.LightningModule, data: PackedDataModule, checkpoint: Path
) -> dict[str, float]:
    """``val/acc``, ``val/loss``, ``test/acc``, ``test/loss`` of a checkpoint; the module then holds it."""
    found: dict[str, float] = {}
    for run in (trainer.validate, trainer.test):
        for metrics in run(module, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False):
            found.update({name: float(value) for name, value in metrics.items()})
    return found


def save_weights(student: TappedNetwork, file: Path) -> None:
    """Writes the student's network, without taps and normalisation, under its name only when whole."""
    temporary = file.with_name(f".{file.name}")
    state = student.network.state_dict()
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    temporary.write_bytes(save(tensors))  # save_file would make it readable for its owner alone
    temporary.replace(file)


def check_classes(config: DictConfig, packed: PackedDataset) -> None:
    """Refuses a data set whose classes are not as many as the configuration says.

    Raises:
        UserError: if they differ.
    """
    if len(packed.classes) != config.dataset.num_classes:
        raise UserError(
            f"The data set {config.dataset.name!r} has {len(packed.classes)} classes "
            f"({', '.join(packed.classes[:5])}, ...); dataset.num_classes is {config.dataset.num_classes}.",
            fix=f"dataset.num_classes={len(packed.classes)}",
        )


def load_own_weights(config: DictConfig, teacher: Teacher) -> None:
    """Reads the file of a teacher's weights, where there is one."""
    given: Any = OmegaConf.to_container(config.teacher[teacher.name].weights, resolve=True)
    if given["path"] is not None:
        load_weights(teacher.network.network, **{key: value for key, value in given.items() if value})


def packed_digest(config: DictConfig) -> str | None:
    """What identifies the pixels that are packed now; None where they are not."""
    source, root = assemble.dataset_source(config), packed_root_of(config)
    return PackedDataset.open(packed_folder(source, root)).digest if is_packed(source, root) else None


def refuse_other_pixels(record: Mapping[str, Any], digest: str | None, folder: RunFolder) -> None:
    """Refuses what was trained before the images changed: its validation split was another.

    Raises:
        UserError: if the record names other pixels than the present ones.
    """
    if digest is not None and record["dataset"]["digest"] != digest:
        raise UserError(
            f"{folder.path} was trained on other images of {record['dataset']['name']!r} "
            f"(digest {record['dataset']['digest'][:12]}) than are packed now ({digest[:12]}).",
            fix=f"start it over: {record['command']} force=true",
        )


def with_absolute_paths(config: DictConfig) -> DictConfig:
    """The configuration with roots that mean the same from any directory."""
    changed = deepcopy(config)
    for name, place in config.paths.items():
        changed.paths[name] = str(Path(place).resolve())
    return changed
