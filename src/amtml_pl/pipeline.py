"""One run from its plan to its record; a teacher that has to be trained first is a run of its own."""

from __future__ import annotations

import logging
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.trainer.states import TrainerFn, TrainerStatus
from safetensors.torch import load_file, save

from amtml_pl import assemble
from amtml_pl.config import recipe
from amtml_pl.data import PackedDataModule
from amtml_pl.entry_point import console
from amtml_pl.errors import UserError
from amtml_pl.features import TappedNetwork, cost
from amtml_pl.packing import PackedDataset, pack
from amtml_pl.plan import (
    make_plan,
    packed_root_of,
    refuse_missing,
    show_plan,
    teacher_command,
    teacher_folder,
)
from amtml_pl.runs import (
    AtomicCheckpointIO,
    EpochTable,
    RunFolder,
    checkpoint_callbacks,
    git_state,
    versions,
    write_text,
)
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
        data = assemble.data_module(self.config, packed)
        for teacher in self.teachers:
            self.provide_teacher(teacher, data)
        write_text(self.folder.config_file, OmegaConf.to_yaml(self.config, resolve=True))
        about = self.describe(packed, data)
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
        """Loads a teacher's weights, trains them first by the teacher's own recipe where there are none."""
        name, network = teacher.name, teacher.network.network
        node = self.config.teacher[name]
        if node.weights.path is not None:
            given: dict[str, Any] = OmegaConf.to_container(node.weights, resolve=True)  # type: ignore[assignment]
            load_weights(network, **given)
            accuracy = self.measure_teacher(teacher, data, "val")
        else:
            own = recipe(self.config, name)
            folder = teacher_folder(self.config, name, own)
            record = folder.completed()
            if record is None:
                console.rule(f"teacher {name}", align="left")
                record = execute(own, folder, node.recipe, teacher_command(self.config, name))
            network.load_state_dict(load_file(folder.weights_file))
            accuracy = record["metrics"]["val/acc"]
            self.teacher_metrics[f"teacher/{name}/test/acc"] = record["metrics"]["test/acc"]
        self.teacher_metrics[f"teacher/{name}/val/acc"] = accuracy
        if node.min_accuracy is not None:
            check_accuracy(name, accuracy, node.min_accuracy)

    def fit_and_test(self, data: PackedDataModule) -> tuple[dict[str, float], dict[str, float]]:
        """Trains or resumes, selects on validation, then reads the test split once for best and last."""
        trainer = self.trainer()
        pl.seed_everything(self.config.seed, verbose=False)  # training a teacher first must change nothing
        resume = self.folder.last_checkpoint if self.folder.last_checkpoint.exists() else None
        if resume is not None:
            console.print(f"Resuming from {resume}")
        start = time.perf_counter()
        fit_or_interrupt(trainer, self.module, data, resume)
        seconds = time.perf_counter() - start
        trainer.loggers = []  # the two evaluations belong into the record, not on the training curves
        last = evaluate(trainer, self.module, data, self.folder.last_checkpoint)
        best = evaluate(trainer, self.module, data, self.folder.best_checkpoint)
        save_weights(self.module.student, self.folder.weights_file)
        for teacher in self.teachers:
            if self.config.teacher[teacher.name].weights.path is not None:
                accuracy = self.measure_teacher(teacher, data, "test")
                self.teacher_metrics[f"teacher/{teacher.name}/test/acc"] = accuracy
        metrics = {**best, **{f"{name}_last": value for name, value in last.items()}, **self.teacher_metrics}
        timing = {
            "fit_seconds": seconds,
            "images_per_second": self.module.images_seen / seconds,
            "teacher_seconds": self.module.teacher_seconds,
            "cache_build_seconds": 0.0,
        }
        return metrics, timing

    def trainer(self) -> pl.Trainer:
        """Lightning's trainer with this project's loggers, checkpoints and table of epochs."""
        progress = RichProgressBar() if console.is_terminal else EpochLines()
        table = EpochTable(self.folder.metrics_file)
        callbacks: list[Callback] = [*checkpoint_callbacks(self.folder), table, progress]
        loggers = [
            assemble.build(node, partial=True)(save_dir=self.folder.path)
            for node in self.config.get("logger", {}).values()
        ]
        make = assemble.build(self.config.trainer, partial=True)
        trainer: pl.Trainer = make(
            logger=loggers,
            callbacks=callbacks,
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

    def describe(self, packed: PackedDataset, data: PackedDataModule) -> dict[str, Any]:
        """What ``run.json`` says of a run whatever becomes of it."""
        config, size = self.config, self.config.dataset.image_size
        student = cost(self.module.student, size)
        return {
            "experiment": self.experiment,
            "seed": config.seed,
            "command": self.command,
            "git": git_state(),
            "versions": versions(),
            "dataset": {"name": config.dataset.name, "digest": packed.digest, "sizes": data.sizes},
            "student": {
                "network": config.student.get("_target_"),
                "parameters": student.parameters,
                "macs": student.macs,
            },
            "teachers": {
                name: {
                    "parameters": cost(network, size).parameters,
                    "macs": cost(network, size).macs,
                    "weights": str(teacher_source(config, name)),
                }
                for name, network in self.teacher_networks.items()
            },
            "weighting": config.weighting.get("_target_") if self.teacher_networks else None,
            "loss": {name: config.coef[name] for name in config.loss},
            "temperature": config.temperature,
            "budget": {
                "epochs": config.trainer.max_epochs,
                "batch_size": config.data.batch_size,
                "views": config.data.views,
            },
        }


class EpochLines(Callback):
    """One line per epoch, where there is no terminal for a progress bar."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says how far the fit is."""
        if trainer.state.fn == TrainerFn.FITTING and trainer.is_global_zero:
            accuracy = float(trainer.callback_metrics["val/acc"])
            epoch = trainer.current_epoch + 1
            console.print(f"epoch {epoch}/{trainer.max_epochs}: val/acc {accuracy:.4f}")


def fit_or_interrupt(
    trainer: pl.Trainer, module: pl.LightningModule, data: PackedDataModule, resume: Path | None
) -> None:
    """Fits; Ctrl-C becomes a KeyboardInterrupt again, which Lightning turns into an exit with status 1."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
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
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in student.network.state_dict().items()
    }
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


def teacher_source(config: DictConfig, name: str) -> Path:
    """The file that a teacher's weights come from."""
    node = config.teacher[name]
    if node.weights.path is not None:
        return Path(node.weights.path)
    return teacher_folder(config, name, recipe(config, name)).weights_file
