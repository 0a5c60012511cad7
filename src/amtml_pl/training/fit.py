"""Fit of a ready run: trained or resumed, selected on validation, tested once."""

from __future__ import annotations

from collections.abc import Mapping

from amtml_pl.data.module import PackedDataModule
from amtml_pl.distill.timing import Spending
from amtml_pl.runs.record import RunRecord, Timing
from amtml_pl.system.checkpoint_file import read_checkpoint
from amtml_pl.system.collectives import broadcast_object, rank_zero_first
from amtml_pl.system.console import console
from amtml_pl.system.ranks import is_rank_zero
from amtml_pl.system.signals import StopRequest
from amtml_pl.teachers.live import measured_accuracy
from amtml_pl.teachers.selected import SelectedTeacher
from amtml_pl.training.connect import held_out_logits
from amtml_pl.training.dashboard.callback import Dashboard
from amtml_pl.training.dashboard.logger import TensorBoard
from amtml_pl.training.dashboard.run_context import RunContext
from amtml_pl.training.settings import Settings
from amtml_pl.training.stages import Fitted, Ready
from amtml_pl.training.trainer import (
    evaluate,
    interruptible,
    make_trainer,
    save_weights,
    weights_of_last_epoch,
)
from amtml_pl.types import SplitName


def fit(ready: Ready, about: RunRecord, gradient_share: Mapping[str, float]) -> Fitted:
    """Train or resume, select on validation, then test best and last once."""
    folder, module, data = ready.request.folder, ready.module, ready.data
    options, stop = ready.request.settings.trainer, StopRequest()
    loggers = [part.maker()(save_dir=folder.path) for part in options.loggers]
    dashboards = [
        Dashboard(logger, subject_of(ready, about, gradient_share))
        for logger in loggers
        if isinstance(logger, TensorBoard)
    ]
    trainer = make_trainer(options, folder, module, stop, loggers, dashboards)
    resume = folder.last_checkpoint if broadcast_object(folder.last_checkpoint.exists()) else None
    if resume is not None:
        read_checkpoint(resume, module.state_dict())  # a damaged file is a UserError
        console.print(f"Resuming from {resume}", markup=False)
    with interruptible(trainer):
        with stop.restoring_handlers():
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        timing = timing_of(module.spent)
        trainer.loggers = []  # the two evaluations belong into the record, not on the training curves
        last = evaluate(trainer, module, data, folder.last_checkpoint)
        best = evaluate(trainer, module, data, folder.best_checkpoint)
    with rank_zero_first():
        if is_rank_zero():
            save_weights(module.student, folder.weights_file)
        teacher_accuracy = accuracy_of_teachers(ready)
    weighed = weights_of_last_epoch(folder.metrics_file)
    metrics = {
        **best,
        **{f"{name}_last": value for name, value in last.items()},
        **teacher_accuracy,
        **weighed,
    }
    for dashboard in dashboards:
        dashboard.conclude(trainer, metrics)
    return Fitted(metrics, timing)


def subject_of(ready: Ready, about: RunRecord, gradient_share: Mapping[str, float]) -> RunContext:
    """Return the facts of a run that a dashboard needs before the fit."""
    method = ready.request.settings.method
    return RunContext(
        about=about,
        classes=ready.data.classes,
        temperature=method.temperature,
        mixture=method.mixture,
        lr=method.optimizer.plain().get("lr"),
        accuracy=ready.prepared.accuracy,
        held_out=held_out_logits(ready.prepared) if ready.teachers and is_rank_zero() else None,
        gradient_share=gradient_share,
    )


def timing_of(spent: Spending) -> Timing:
    """Return the timing of a fit that has just ended."""
    seconds = spent.fit_seconds
    return Timing(
        fit_seconds=seconds,
        images_per_second=spent.images_seen / seconds,
        teacher_seconds=spent.teacher_seconds,
        cache_build_seconds=spent.cache_build_seconds,
    )


def accuracy_of_teachers(ready: Ready) -> dict[str, float]:
    """Return ``teacher/<name>/<split>/acc``; a recipe's teachers have it in their records."""
    found = {name: dict(by_split) for name, by_split in ready.prepared.accuracy.items()}
    for teacher in ready.teachers:
        if teacher.has_own_weights:
            found[teacher.name]["test"] = measure_teacher(teacher, ready.data, ready.request.settings, "test")
    return {
        f"teacher/{name}/{split}/acc": accuracy
        for name, by_split in found.items()
        for split, accuracy in by_split.items()
    }


def measure_teacher(
    teacher: SelectedTeacher, data: PackedDataModule, settings: Settings, split: SplitName
) -> float:
    """Return the accuracy of a teacher with its own weights, measured once."""
    images = {"digest": data.digest, "split": split, "seed": settings.data.seed}
    identity = {"teacher": teacher.identity(), "data": {**images, "val_size": settings.data.val_size}}
    folder, batches = settings.teachers_root / "measured", data.eval_batches(data.split(split))
    return measured_accuracy(teacher.load, batches, folder, identity)
