"""Fit of a ready run: trained or resumed, its epoch selected, tested once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytorch_lightning as pl

from amtml_pl.data.module import PackedDataModule
from amtml_pl.distill.timing import Spending
from amtml_pl.losses.term import mixture_of_targets
from amtml_pl.runs.record import RunRecord, Timing
from amtml_pl.system.checkpoint_file import read_checkpoint
from amtml_pl.system.collectives import broadcast_object, rank_zero_first
from amtml_pl.system.console import console
from amtml_pl.system.ranks import is_rank_zero
from amtml_pl.system.signals import StopRequest
from amtml_pl.teachers.live import measured_accuracy
from amtml_pl.training.callbacks import EpochTable
from amtml_pl.training.connect import held_out_logits
from amtml_pl.training.dashboard.callback import Dashboard
from amtml_pl.training.dashboard.logger import TensorBoard
from amtml_pl.training.dashboard.run_context import RunContext
from amtml_pl.training.extension import begin_extension
from amtml_pl.training.loggers.run_facts import facts_of
from amtml_pl.training.loggers.run_loggers import conclude, run_loggers
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.settings import Settings
from amtml_pl.training.stages import Fitted, Ready
from amtml_pl.training.trainer import interruptible, make_trainer, save_weights, validate_and_test
from amtml_pl.types import SplitName


def fit(ready: Ready, about: RunRecord, gradient_share: Mapping[str, float]) -> Fitted:
    """Train or resume, then test the selected and the last epoch once."""
    is_resumed = ready.request.folder.last_checkpoint.exists()  # an extension begins with one, which is new
    resume = checkpoint_to_resume(ready)
    with run_loggers(ready.request, facts_of(ready, resumed=is_resumed)) as loggers:
        boards = [logger for logger in loggers if isinstance(logger, TensorBoard)]
        dashboards = [Dashboard(logger, run_context(ready, about, gradient_share)) for logger in boards]
        table, stop = EpochTable(ready.request.folder.metrics_file), StopRequest()
        trainer = make_trainer(ready, table, stop, loggers, dashboards)
        with interruptible(trainer):
            with stop.restoring_handlers():
                trainer.fit(ready.module, datamodule=ready.data, ckpt_path=resume, weights_only=True)
            timing = timing_of(ready.module.spent)
            trainer.loggers = []  # the two evaluations belong into the record, not on the training curves
            metrics = evaluate_fit(trainer, ready)
        conclude([each for each in loggers if each not in boards], metrics, table.rows)
        metrics |= table.teacher_weights()
        for dashboard in dashboards:
            dashboard.conclude(trainer, metrics)
    return Fitted(metrics, timing, epochs=len(table.rows))


def evaluate_fit(trainer: pl.Trainer, ready: Ready) -> dict[str, float]:
    """Return the metrics of both checkpoints and of the teachers; save the student."""
    folder = ready.request.folder
    last = validate_and_test(trainer, ready, folder.last_checkpoint)
    best = last
    if ready.data.has_validation:
        best = validate_and_test(trainer, ready, folder.best_checkpoint)
    with rank_zero_first():
        if is_rank_zero():
            save_weights(ready.module.student, folder.weights_file)
        teacher_accuracy = accuracy_of_teachers(ready)
    return best | {f"{name}_last": value for name, value in last.items()} | teacher_accuracy


def checkpoint_to_resume(ready: Ready) -> Path | None:
    """Return the run's last checkpoint, read once to find damage; None before there is one.

    An extension begins with a checkpoint.
    """
    last, origin = ready.request.folder.last_checkpoint, ready.prepared.plan.origin
    with rank_zero_first():
        if origin is not None and is_rank_zero() and not last.exists():
            begin_extension(origin, ready.module, ready.request.folder)
    if not broadcast_object(last.exists()):
        return None
    read_checkpoint(last, ready.module.state_dict())  # a damaged file is a UserError
    console.print(f"Resuming from {last}", markup=False)
    return last


def timing_of(spent: Spending) -> Timing:
    """Return the record's timing of a fit that has just ended."""
    seconds = spent.fit_seconds
    return Timing(
        fit_seconds=seconds,
        images_per_second=spent.images_seen / seconds,
        teacher_seconds=spent.teacher_seconds,
        cache_build_seconds=spent.cache_build_seconds,
        compile_seconds=spent.compile_seconds,
    )


def run_context(ready: Ready, about: RunRecord, gradient_share: Mapping[str, float]) -> RunContext:
    """Return the facts of a run for its dashboards."""
    method = ready.request.settings.method
    return RunContext(
        about=about,
        classes=ready.data.classes,
        temperature=method.temperature,
        mixture=mixture_of_targets(ready.module.loss_terms().values(), method.mixture),
        lr=method.optimizer.plain().get("lr"),
        accuracy=ready.prepared.accuracy,
        held_out=held_out_logits(ready.prepared) if ready.teachers and is_rank_zero() else None,
        gradient_share=gradient_share,
    )


def accuracy_of_teachers(ready: Ready) -> dict[str, float]:
    """Return ``teacher/<name>/<split>/acc``; measure on test those without a training record."""
    found: dict[str, float] = {}
    for teacher in ready.teachers:
        accuracy = dict(ready.prepared.accuracy[teacher.name])
        if teacher.has_own_weights and teacher.options.head != "none":
            accuracy["test"] = measure_teacher(teacher, ready.data, ready.request.settings, "test")
        found |= {f"teacher/{teacher.name}/{split}/acc": value for split, value in accuracy.items()}
    return found


def measure_teacher(
    teacher: SelectedTeacher, data: PackedDataModule, settings: Settings, split: SplitName
) -> float:
    """Return the accuracy of a teacher with weights from elsewhere, measured once."""
    rows = data.split(split)
    images = {"digest": data.digest, "split": split, "rows": rows.digest, "seed": settings.data.seed}
    identity = {"teacher": teacher.identity(), "data": {**images, "val_size": settings.data.val_size}}
    folder, batches = settings.teachers_root / "measured", data.eval_batches(rows)
    return measured_accuracy(teacher.load, batches, folder, identity)
