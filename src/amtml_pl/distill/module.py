"""Shared part of every way of training a student: evaluation, optimiser, teachers."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, cast

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from amtml_pl.data.counter_rng import random_bits
from amtml_pl.distill.compatibility import TeacherSource, check_composition
from amtml_pl.distill.compiled import CompiledStep
from amtml_pl.distill.loss_components import StepBreakdown, trainable
from amtml_pl.distill.metrics import CollapseChange, EpochMeans, weight_statistics
from amtml_pl.distill.observer import Observer
from amtml_pl.distill.schedules import schedule_of
from amtml_pl.distill.step_watch import StepWatch
from amtml_pl.distill.timing import Spending
from amtml_pl.distill.whole_batch import WholeBatch
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.hint_statistics import HintStatistics
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.types import Batch, Step, TeacherOutputs
from amtml_pl.weighting.known_classes import knows_label
from amtml_pl.weighting.scheme import Weighting

log = logging.getLogger(__name__)


class StudentModule(pl.LightningModule):
    """Student with its training step, evaluation, optimiser and checkpoint; a base class.

    Student, weighting and the terms' projections are submodules; the teacher source is not.

    Args:
        student: the network to train, with the taps that terms and weighting read.
        terms: the loss terms by name, already built.
        coef: the multiplier of each term; entries without a term are ignored.
        num_classes: K.
        optimizer: takes parameter groups, each with a ``name`` (student, terms, weighting).
        scheduler: takes the optimiser, gives a schedule, see `schedule_of`; None keeps the rate.
        teachers: the teacher source; None trains without.
        weighting: weighs the teachers; needed where there are teachers. It has its own learning rate.
            Weight decay does not apply to it: its regularisation is a loss term.
        seed: of what is random in a step, such as dropout; every step starts from (seed, step).

    Attributes:
        blends_labels: whether the method can take the labels that mixup blends.
        steps_itself: whether the module steps its optimisers, and not Lightning.
        uses_weighting_unchanged: whether the teachers' weights are those that the weighting gives.
        compiled: what of it is compiled; None for an eager run.
        has_specialists: whether a teacher does not know every class, so that this is measured.
        steps_per_epoch: optimiser steps of an epoch, which schedules of steps read.
        watch: notes non-finite numbers on an accelerator; None where each step is checked at once.
        coef: the multiplier of every summand of the student's loss.
        networks_trained: number of networks that a step trains, for the run's budget.
        learns_weights: whether the teachers' weights are learned, so that a collapse deserves a warning.
        needs_held_out: whether the weighting needs the teachers' outputs on the validation split.
        spent: what the fit costs; a callback, `amtml_pl.training.callbacks.Accounts`, keeps it.

    Raises:
        UserError: if there is no term, one has no coefficient or needs missing teachers, teachers come
            without a weighting, or a learned weighting without a term that trains it.
    """

    blends_labels: ClassVar[bool] = True
    steps_itself: ClassVar[bool] = False
    uses_weighting_unchanged: ClassVar[bool] = False
    compiled: CompiledStep | None = None
    has_specialists: bool = False
    steps_per_epoch: int = 1
    watch: StepWatch | None = None

    def __init__(
        self,
        student: TappedNetwork,
        terms: Mapping[str, LossTerm],
        coef: Mapping[str, float],
        num_classes: int,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        teachers: TeacherSource | None = None,
        weighting: Weighting | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = not self.steps_itself
        check_composition(terms, coef, teachers, weighting)
        self.student = student
        self.terms = nn.ModuleDict(dict(terms))
        self.coef = {name: float(coef[name]) for name in terms}
        self.weighting = weighting if teachers is not None else None
        self.heads: dict[str, nn.Module] = {}  # the teachers': in no optimiser and no checkpoint
        self.num_classes = num_classes
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.teacher_source = teachers
        self.networks_trained = 1
        self.learns_weights = self.weighting is not None and self.weighting.learns
        self.needs_held_out = self.weighting is not None and self.weighting.needs_held_out
        splits = ("val", "test")
        # The labels are checked when they are packed; to check them here would wait for the device.
        unchecked: dict[str, Any] = {"average": "micro", "validate_args": False}
        self.accuracy = nn.ModuleDict({s: MulticlassAccuracy(num_classes, **unchecked) for s in splits})
        # Lightning's own mean over processes rounds the mean of their shares' sizes to a whole number.
        self.cross_entropy = nn.ModuleDict({s: MeanMetric(nan_strategy="disable") for s in splits})
        self.means = EpochMeans()
        self.collapse = CollapseChange()
        self.seed, self.spent = seed, Spending()

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""] | None:
        """Return a step's loss; None where the module steps its optimisers itself."""

    @abstractmethod
    def break_down(self, batch: Batch) -> StepBreakdown:
        """Return a batch's step, summand by summand, without training."""

    def trainable_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return trainable parameters by group, the student first; no group is empty."""
        return trainable({"student": self.student})

    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """Yield every trainable parameter of the student's optimiser once, in named groups."""
        yield {"name": "student", "params": list(self.student.parameters())}

    def loss_terms(self) -> dict[str, LossTerm]:
        """Return the terms by name, in order."""
        return cast("dict[str, LossTerm]", dict(self.terms.items()))

    def total(self, values: Mapping[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Return the sum of unweighted values, each times its coefficient."""
        return torch.stack([self.coef[name] * value for name, value in values.items()]).sum()

    def self_check(self) -> Iterator[tuple[str, str]]:
        """Yield the method's own defects: a name and a sentence on each."""
        yield from ()

    def head_names(self) -> tuple[str, ...]:
        """Return flat names of the hints whose teachers' classifiers a term runs."""
        return tuple(dict.fromkeys(name for term in self.loss_terms().values() for name in term.head_names()))

    def set_teacher_heads(self, heads: Mapping[str, nn.Module]) -> None:
        """Pass the teachers' own classifiers, frozen, to the terms before the fit begins."""
        self.heads = dict(heads)
        for term in self.loss_terms().values():
            term.set_teacher_heads(self.heads)

    def set_hint_statistics(self, statistics: Mapping[str, HintStatistics]) -> None:
        """Pass the statistics of the teachers' hints to the terms before the fit begins."""
        for term in self.loss_terms().values():
            term.set_hint_statistics(statistics)

    def set_class_counts(self, counts: Int64[Tensor, " K"]) -> None:
        """Pass the number of training images of every class to the terms."""
        for term in self.loss_terms().values():
            term.set_class_counts(counts)

    def calibrate_weighting(
        self,
        accuracy: Mapping[str, float],
        outputs: Callable[[], tuple[Float[Tensor, "N M K"], Int64[Tensor, " N"]]],
    ) -> None:
        """Fit the weighting to the teachers' validation accuracy and, if needed, their outputs."""
        if self.weighting is not None:
            self.weighting.set_teacher_accuracy(accuracy)
            if self.needs_held_out:
                self.weighting.fit_to_held_out(*outputs())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure accuracy and cross-entropy on the validation split."""
        self.evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure accuracy and cross-entropy on the test split."""
        self.evaluate(batch, "test")

    def evaluate(self, batch: Batch, split: str) -> None:
        """Log ``<split>/acc`` in [0, 1] and ``<split>/loss``, averaged over all samples."""
        logits = self.student(batch.images).logits
        accuracy, loss = cast("Any", self.accuracy[split]), cast("Any", self.cross_entropy[split])
        accuracy.update(logits, batch.labels)
        loss.update(F.cross_entropy(logits, batch.labels, reduction="none"))
        for observer in self.observers():
            observer.saw_evaluation(batch, logits)
        self.log_dict({f"{split}/acc": accuracy, f"{split}/loss": loss}, batch_size=len(batch))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return one optimiser over named groups, and the schedule."""
        optimizer = self.make_optimizer(list(self.parameter_groups()))
        if self.make_scheduler is None:
            return {"optimizer": optimizer}
        schedule, steps = schedule_of(self.make_scheduler, optimizer, self.steps_per_epoch)
        interval = "step" if steps > 1 else "epoch"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}

    def on_fit_start(self) -> None:
        """Move the teachers and their classifiers to the device of the batches."""
        if self.teacher_source is not None:
            self.teacher_source.to(self.device)
        for head in self.heads.values():
            head.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the measurements of the unfinished epoch."""
        checkpoint["collapse"] = self.collapse.kind
        checkpoint["epoch_means"] = self.means.state()  # empty at an epoch's end, where they are logged

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the measurements of the unfinished epoch, if a fit is resumed."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.collapse.kind = checkpoint["collapse"]
            self.means.load(checkpoint.get("epoch_means", []))

    def on_train_epoch_end(self) -> None:
        """Log losses, accuracy and teacher weights; warn if a learned weighting has collapsed."""
        if not self.automatic_optimization:  # a loop that steps its optimisers itself has to step these too
            schedules = self.lr_schedulers() or []
            for schedule in schedules if isinstance(schedules, list) else [schedules]:
                cast("Any", schedule).step()
        means = self.means.take()
        # Equal in all ranks, which Lightning does not know. The table of epochs passes them to the loggers.
        self.log_dict(means, sync_dist=True, logger=False)
        measured = self.learns_weights and "weight_entropy" in means
        if measured and (sentence := self.collapse.sentence(means)):
            epoch = self.current_epoch + 1  # as the lines of the console count them
            log.warning("epoch %d/%s: %s", epoch, self.trainer.max_epochs, sentence)

    def seed_step(self, stage: int = 0) -> None:
        """Seed random numbers by (seed, step, stage), so that they repeat on a resume.

        Args:
            stage: 0 before the networks' forward, which may have dropout; 1 once the batch is gathered.
        """
        if torch.compiler.is_compiling():  # only steps without random draws are compiled as a whole
            return
        state = random_bits(self.seed, self.global_step)
        torch.manual_seed(random_bits(state, stage).item() >> 1)

    def gather_batch(self, share: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function from a process's share to the whole batch; maybe the identity."""
        if torch.compiler.is_compiling():  # only steps of a single process are compiled as a whole
            return lambda tensor: tensor
        several = self._trainer is not None and self._trainer.world_size > 1
        return WholeBatch(share) if several else lambda tensor: tensor

    def teacher_outputs_of(self, batch: Batch) -> TeacherOutputs | None:
        """Return the teachers' outputs, and count the seconds they took."""
        if self.teacher_source is None:
            return None
        with self.spent.timing_teachers():
            return self.teacher_source(batch)

    def observers(self) -> list[Observer]:
        """Return the trainer's callbacks that observe every step and every evaluation."""
        return [each for each in getattr(self._trainer, "callbacks", ()) if isinstance(each, Observer)]

    def update_metrics(
        self, step: Step, batch: Batch, values: Mapping[str, Float[Tensor, ""]], total: Float[Tensor, ""]
    ) -> None:
        """Add a whole batch's unweighted losses, accuracy and teacher weights to the epoch's means."""
        measured = {**{f"loss/{name}": value for name, value in values.items()}, "loss/total": total}
        measured["train/acc"] = (step.student.logits.argmax(dim=1) == step.labels).float().mean()
        if step.teachers is not None and step.weights is not None:
            measured |= weight_statistics(step.teachers.names, step.weights)
            if self.has_specialists:
                knows = knows_label(step.teachers.logits, step.labels)
                measured["weight_known"] = (step.weights.detach() * knows).sum(dim=1).mean()
        self.means.add(measured, len(step.labels))
        for observer in self.observers():
            observer.saw_step(step, batch)
