"""Callback that writes TensorBoard's curves each epoch, and its figures in some epochs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from amtml_pl.distill.doctor.step import gradient_shares
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.observer import Observer
from amtml_pl.system.ranks import is_rank_zero
from amtml_pl.training.dashboard.answers import PredictionBuffer
from amtml_pl.training.dashboard.disagreement import Examples, MostDisputed, draw_examples
from amtml_pl.training.dashboard.logger import TensorBoard
from amtml_pl.training.dashboard.run_context import RunContext
from amtml_pl.training.dashboard.tags import chart_layout, final_tags, table_row, tag_of
from amtml_pl.training.dashboard.teaching import Teaching, concatenated
from amtml_pl.training.dashboard.weights_by_class import (
    draw_weights_by_class,
    mean_weights_by_class,
    write_weights_by_class,
)
from amtml_pl.types import Batch, Step

# The most disputed images are chosen among so many of an epoch's images, whose order is random.
CANDIDATES = 1024


class Dashboard(Observer, Checkpoint):
    """Callback that writes a fit's dashboard, on rank 0 only.

    It reads what a step computes anyway. Only the gradients' shares need extra passes, after which random
    numbers and running statistics are restored. It is a ``Checkpoint`` because Lightning calls those last,
    after the module has logged the epoch's metrics. It stands before the one that writes ``last.ckpt``, so
    that no epoch is lost.
    """

    def __init__(self, logger: TensorBoard, context: RunContext) -> None:
        self.logger, self.context = logger, context
        self.file = logger.folder / "weights_by_class.csv"
        self.epoch, self.epochs = -1, 0
        self.is_single_process = True
        self.rates: dict[str, float] = {}
        self.shares: dict[str, float] = {}
        self.teaching: list[Teaching] = []
        self.disputed = MostDisputed()
        self.answers = {"val": PredictionBuffer(), "test": PredictionBuffer()}
        self.means: dict[int, Float[Tensor, "K M"]] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the table of earlier epochs."""
        self.epochs, self.is_single_process = int(trainer.max_epochs or 0), trainer.world_size == 1
        if self.context.teachers and trainer.is_global_zero:
            write_weights_by_class(self.file, self.context.teachers, self.context.classes, self.means)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that makes a resumed dashboard equal an uninterrupted one."""
        kept, means = self.disputed.kept, list(self.means.values())
        return {
            "epoch": self.epoch,
            "rates": self.rates,
            "shares": self.shares,
            "teaching": vars(concatenated(self.teaching)) if self.teaching else None,
            "disputed": {
                "kept": None if kept is None else vars(concatenated([kept])),
                "seen": self.disputed.seen,
            },
            "means": {"epochs": list(self.means), "of": torch.stack(means) if means else None},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; the epoch may be half done."""
        for name in ("epoch", "rates", "shares"):
            setattr(self, name, state_dict[name])
        teaching, disputed, means = (state_dict[name] for name in ("teaching", "disputed", "means"))
        self.teaching = [] if teaching is None else [Teaching(**teaching)]
        kept = None if disputed["kept"] is None else Examples(**disputed["kept"])
        self.disputed = MostDisputed(kept, disputed["seen"])
        self.means = dict(zip(means["epochs"], means["of"] if means["epochs"] else (), strict=True))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the event file, and lay out its charts."""
        if not trainer.is_global_zero:
            return
        if self.logger.begin(trainer.current_epoch):
            terms = list(cast("StudentModule", pl_module).coef)
            self.logger.opened.add_custom_scalars(chart_layout(len(self.context.teachers), terms))
        if trainer.current_epoch == 0:
            self.shares = dict(self.context.gradient_share)
        self.logger.opened.flush()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Begin an epoch, or continue one that was half done."""
        if self.logger.writer is None or trainer.current_epoch == self.epoch:
            return
        self.epoch = trainer.current_epoch
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        self.rates = {g.get("name", f"group{place}"): float(g["lr"]) for place, g in enumerate(groups)}
        self.teaching, self.disputed = [], MostDisputed()
        # Not at the first step, which the doctor has measured; under DDP all ranks would have to take part.
        if self.has_figures and trainer.global_step > 0 and self.is_single_process:
            self.shares = gradient_shares(cast("StudentModule", pl_module), batch)

    @property
    def has_figures(self) -> bool:
        """Return True if the epoch has figures; the last one has them after the fit."""
        return (self.epoch + 1) % self.logger.figures_every == 0 or self.epoch + 1 == self.epochs

    def saw_step(self, step: Step, batch: Batch) -> None:
        """Store predictions and weights; store whole samples if figures will be drawn."""
        if not is_rank_zero() or step.teachers is None or step.weights is None or not self.context.all_logits:
            return
        seen = step.labels, step.teachers.logits, step.weights.detach(), step.student.logits.detach()
        self.teaching.append(Teaching.of(*seen, self.context.temperature, self.context.mixture))
        has_room = self.disputed.seen < CANDIDATES and step.weights.shape[1] > 1
        if self.has_figures and has_room and self.is_single_process:  # else the images are a share of these
            self.disputed.see(Examples(batch.images, *seen))

    def saw_evaluation(self, batch: Batch, logits: Float[Tensor, "B K"]) -> None:
        """Store the student's predictions."""
        if is_rank_zero():
            self.answers[batch.split].add(batch, logits)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Discard the predictions of the previous pass."""
        self.answers["val"] = PredictionBuffer()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Discard the predictions of the previous pass."""
        self.answers["test"] = PredictionBuffer()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's curves, and its figures if it has some."""
        if self.logger.writer is None:
            return
        context = self.context
        self.logger.scalars(
            {
                **{tag_of(name): float(value) for name, value in trainer.callback_metrics.items()},
                **{f"{name}/lr": rate for name, rate in self.rates.items()},
                **{f"teacher/{k}/val/acc": of["val"] for k, of in context.accuracy.items() if "val" in of},
                **{f"student/gradient_share/{name}": share for name, share in self.shares.items()},
                **self.answers["val"].scalars(context.held_out, context.teachers),
                **self.logger.latest,
            },
            self.epoch,
        )
        self.shares = {}
        if self.teaching:
            self.write_teaching(concatenated(self.teaching))
            self.teaching = []
        if self.has_figures and self.epoch + 1 < self.epochs:
            self.draw_confusion(self.answers["val"], "student/val", self.epoch)
            self.draw_teaching(self.epoch)
        self.logger.opened.flush()

    def write_teaching(self, teaching: Teaching) -> None:
        """Write curves, histograms and the table of the epoch's weights."""
        teachers, classes = self.context.teachers, self.context.classes
        self.logger.scalars(teaching.scalars(teachers) | teaching.known_weights(classes), self.epoch)
        for name, weights in zip(teachers, teaching.weights.unbind(1), strict=True):
            self.logger.histogram(f"teacher/{name}/weights", weights, self.epoch)
        self.means[self.epoch] = mean_weights_by_class(teaching.weights, teaching.labels, len(classes))
        write_weights_by_class(self.file, teachers, classes, self.means)

    def draw_confusion(self, answers: PredictionBuffer, whose: str, epoch: int) -> None:
        """Write the confusion matrix of the last pass over a split."""
        if answers.logits:
            figure = answers.draw_confusion(self.context.classes, whose)
            self.logger.figure(f"{whose}/confusion", figure, epoch)

    def draw_teaching(self, epoch: int) -> None:
        """Write the heat map of weights by class, and the disputed images."""
        about, kept = self.context, self.disputed.kept
        if self.means:
            heat_map = draw_weights_by_class([*self.means.values()][-1], about.classes, about.teachers)
            self.logger.figure("ensemble/weights_by_class", heat_map, epoch)
        if kept is not None:
            figure = draw_examples(
                concatenated([kept]), about.teachers, about.classes, about.temperature, about.mixture
            )
            self.logger.figure("ensemble/disputed_images", figure, epoch)

    def conclude(self, trainer: pl.Trainer, metrics: Mapping[str, float]) -> None:
        """Write the run's results once the checkpoints are evaluated, the selected one last."""
        if not trainer.is_global_zero:
            return
        end = int(trainer.max_epochs or 0)
        if self.logger.writer is None:  # an earlier session has completed the fit
            self.logger.begin(end)
        for split, answers in self.answers.items():
            self.draw_confusion(answers, f"student/best/{split}", end)
        self.draw_teaching(end)
        self.logger.scalars(final_tags(metrics), end)
        for summary in table_row(self.context.about, self.context.lr):
            self.logger.events.add_summary(summary)
        self.logger.close()
