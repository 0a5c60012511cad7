"""Timing of TensorBoard's content: curves each epoch, figures if time allows, the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from amtml_pl.distill.doctor.step import SHARE_SAMPLES, gradient_shares
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.observer import Observer
from amtml_pl.system.ranks import is_rank_zero
from amtml_pl.training.dashboard.answers import PredictionBuffer
from amtml_pl.training.dashboard.budget import Budget
from amtml_pl.training.dashboard.card import card, result_card
from amtml_pl.training.dashboard.disagreement import Examples, MostDisputed
from amtml_pl.training.dashboard.figures import RunContext, write_answers, write_teaching
from amtml_pl.training.dashboard.logger import TensorBoard
from amtml_pl.training.dashboard.tags import chart_layout, final_tags, table_row, tag_of
from amtml_pl.training.dashboard.teaching import Teaching
from amtml_pl.training.dashboard.weights_by_class import WeightsByClass, mean_weights_by_class
from amtml_pl.types import Batch, Step

# What the first of a kind is taken to need: a set of figures with matplotlib's own start, on a slow core.
SECONDS_OF_FIRST_FIGURES = 3.0
# What the figures of the end and the graph are taken to need, which are always made; kept back from the fit.
SECONDS_OF_THE_END = 2.0
# From so many of an epoch's images, which come in random order, the most disputed ones are shown.
CANDIDATES = 1024


class Dashboard(Observer, Checkpoint):
    """Callback that writes a fit's dashboard; only the first of several processes does.

    It only reads what steps compute anyway, but for the gradients' shares, after which everything is put
    back. It is a ``Checkpoint`` because Lightning calls those last, after the module has logged its own sums
    of the epoch, and stands before the one that writes ``last.ckpt``, so that no epoch is lost.
    """

    def __init__(self, logger: TensorBoard, subject: RunContext) -> None:
        self.logger, self.subject = logger, subject
        self.budget = Budget(logger.budget, lambda: 0.0)
        self.epoch = -1
        self.drawn = -logger.figures_every
        self.wants_figures = False
        self.alone = True
        self.rates: dict[str, float] = {}
        self.shares: dict[str, float] = {}
        self.teaching: list[Teaching] = []
        self.disputed = MostDisputed()
        self.answers = {"val": PredictionBuffer(), "test": PredictionBuffer()}
        self.by_class: WeightsByClass | None = None
        self.means: dict[int, Float[Tensor, "K M"]] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the table of earlier epochs."""
        self.alone = trainer.world_size == 1
        if self.subject.teachers and trainer.is_global_zero:
            file = self.logger.folder / "weights_by_class.csv"
            self.by_class = WeightsByClass(file, self.subject.teachers, self.subject.classes, self.means)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that makes a resumed dashboard equal an uninterrupted one."""
        taught, kept = self.teaching, self.disputed.kept
        means = list(self.means.values())
        return {
            "epoch": self.epoch,
            "drawn": self.drawn,
            "wants_figures": self.wants_figures,
            "rates": self.rates,
            "shares": self.shares,
            "teaching": vars(Teaching.joined(taught)) if taught else None,
            "disputed": {"kept": None if kept is None else vars(kept), "seen": self.disputed.seen},
            "means": {"epochs": list(self.means), "of": torch.stack(means) if means else None},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; the epoch may be half done."""
        for name in ("epoch", "drawn", "wants_figures", "rates", "shares"):
            setattr(self, name, state_dict[name])
        taught, disputed, means = (state_dict[name] for name in ("teaching", "disputed", "means"))
        self.teaching = [] if taught is None else [Teaching(**taught)]
        kept = None if disputed["kept"] is None else Examples(**disputed["kept"])
        self.disputed = MostDisputed(kept, disputed["seen"])
        self.means = dict(zip(means["epochs"], means["of"] if means["epochs"] else (), strict=True))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the event file, and write what is known before the first step."""
        if not trainer.is_global_zero:
            return
        module, subject = cast("StudentModule", pl_module), self.subject
        spent, before = module.spent, module.spent.seconds_before
        self.budget.elapsed = lambda: spent.fit_seconds - before
        epochs = max(int(trainer.max_epochs or 1), 1)
        self.budget.reserved = lambda: SECONDS_OF_THE_END * (trainer.current_epoch + 1) / epochs
        with self.budget.spending("opening"):
            epoch = trainer.current_epoch
            if self.logger.begin(epoch):
                layout = chart_layout(len(subject.teachers), list(module.coef))
                self.logger.opened.add_custom_scalars(layout)
                self.logger.opened.add_text("run", card(subject, alone=self.alone), epoch)
            if epoch == 0:
                self.shares = dict(subject.gradient_share)
            self.logger.flush()

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Begin an epoch, or continue one that was half done."""
        if self.logger.writer is None or trainer.current_epoch == self.epoch:
            return
        self.measure_shares(trainer, cast("StudentModule", pl_module), batch)
        with self.budget.spending():
            self.epoch = trainer.current_epoch
            groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
            self.rates = {g.get("name", f"group{place}"): float(g["lr"]) for place, g in enumerate(groups)}
            self.teaching, self.disputed = [], MostDisputed()
            due = self.epoch - self.drawn >= self.logger.figures_every
            allowed = self.budget.allows("figures", SECONDS_OF_FIRST_FIGURES)
            self.wants_figures = (due and allowed) or self.is_last(trainer)

    def measure_shares(self, trainer: pl.Trainer, module: StudentModule, batch: Batch) -> None:
        """Measure each term's share of the gradient at an epoch's first batch, if time allows.

        Not of the fit's first batch, which the doctor has measured; nor where processes share batches,
        since it would take all of them.
        """
        if trainer.global_step == 0 or not self.alone:
            return
        # Of a step a third is its pass forward; this takes one back for each term, of some of the images.
        passes = (1 + 2 * len(module.coef)) / 3 * min(1.0, SHARE_SAMPLES / len(batch))
        first = passes * self.budget.elapsed() / trainer.global_step
        if self.budget.allows("gradient shares", first, part=0.7):  # or nothing were left for figures
            with self.budget.spending("gradient shares"):
                self.shares = gradient_shares(module, batch)

    def is_last(self, trainer: pl.Trainer) -> bool:
        """Return whether this is the fit's last epoch, whose figures are drawn later."""
        return trainer.current_epoch + 1 == trainer.max_epochs

    def saw_step(self, step: Step, batch: Batch) -> None:
        """Store predictions and weights; store whole samples if figures will be drawn."""
        if not is_rank_zero():
            return
        with self.budget.spending():
            taught = Teaching.of(step, self.subject.temperature, self.subject.mixture)
            if taught is None or step.teachers is None or step.weights is None:
                return
            self.teaching.append(taught)
            room = self.disputed.seen < CANDIDATES
            if self.wants_figures and room and self.alone and len(taught.weights[0]) > 1:
                student, weights = step.student.logits.detach(), step.weights.detach()
                self.disputed.see(Examples(batch.images, step.labels, step.teachers.logits, weights, student))

    def saw_evaluation(self, batch: Batch, logits: Float[Tensor, "B K"]) -> None:
        """Store the student's predictions."""
        if not is_rank_zero():
            return
        with self.budget.spending():
            self.answers[batch.split].add(batch, logits)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Discard the predictions of the pass before."""
        self.answers["val"] = PredictionBuffer()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Discard the predictions of the pass before."""
        self.answers["test"] = PredictionBuffer()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch's curves, and its figures if the budget allows them."""
        if self.logger.writer is None:
            return
        metrics = {tag_of(name): float(value) for name, value in trainer.callback_metrics.items()}
        with self.budget.spending():
            accuracy = {f"teacher/{name}/val/acc": of["val"] for name, of in self.subject.accuracy.items()}
            shares = {f"student/gradient_share/{name}": share for name, share in self.shares.items()}
            rates = {f"{name}/lr": rate for name, rate in self.rates.items()}
            answered = self.answers["val"].scalars(self.subject.held_out, self.subject.teachers)
            self.logger.scalars({**metrics, **rates, **accuracy, **shares, **answered}, self.epoch)
            self.shares = {}
            self.tell_teaching()
        if self.wants_figures and not self.is_last(trainer):
            with self.budget.spending("figures"):
                write_answers(self.logger, self.subject, self.answers["val"], "student/val", self.epoch)
                write_teaching(self.logger, self.subject, self.last_means, self.disputed.kept, self.epoch)
            self.drawn = self.epoch
        with self.budget.spending():
            share = self.budget.spent / max(self.budget.elapsed(), 1e-9)
            self.logger.scalars({"dashboard/share_of_fit": share}, self.epoch)
            self.logger.flush()

    def tell_teaching(self) -> None:
        """Write curves, histograms and the table of the epoch's weights."""
        if not self.teaching or self.by_class is None:
            return
        subject, taught = self.subject, Teaching.joined(self.teaching)
        self.teaching = []
        self.logger.scalars(taught.scalars(subject.teachers), self.epoch)
        for name, weights in zip(subject.teachers, taught.weights.unbind(1), strict=True):
            self.logger.histogram(f"teacher/{name}/weights", weights, self.epoch)
        means = mean_weights_by_class(taught.weights, taught.labels, len(subject.classes))
        self.means[self.epoch] = means
        self.by_class.add(self.epoch, means)

    @property
    def last_means(self) -> Float[Tensor, "K M"] | None:
        """Return the last epoch's mean weights by class; None without teachers."""
        return next(reversed(self.means.values()), None)

    def conclude(
        self,
        trainer: pl.Trainer,
        module: StudentModule,
        metrics: Mapping[str, float],
        timing: Mapping[str, float],
    ) -> None:
        """Write the run's results once both checkpoints are evaluated, the best one last."""
        if not trainer.is_global_zero:
            return
        end = int(trainer.max_epochs or 0)
        if self.logger.writer is None:  # the fit had come to its end in an earlier session
            self.logger.begin(end)
        spent = {"in the fit": self.budget.spent}
        with self.budget.spending("the end"):
            for split in ("val", "test"):
                whose = f"student/best/{split}"
                write_answers(self.logger, self.subject, self.answers[split], whose, end)
            write_teaching(self.logger, self.subject, self.last_means, self.disputed.kept, end)
            self.logger.scalars(final_tags(metrics), end)
            for summary in table_row(self.subject.about, self.subject.lr):
                self.logger.events.add_summary(summary)
            self.logger.graph(module.student, self.subject.image_size)
        spent["after it"] = self.budget.cost["the end"]
        self.logger.opened.add_text("result", result_card(metrics, timing, spent), end)
        self.logger.close()
