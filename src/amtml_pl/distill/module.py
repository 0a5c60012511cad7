"""Shared part of every way of training a student: evaluation, optimiser, teachers."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, cast

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from amtml_pl.data.counter_rng import random_bits
from amtml_pl.distill.compatibility import TeacherSource, check_composition
from amtml_pl.distill.metrics import EpochMeans, WeightStatistics
from amtml_pl.distill.objectives import StepBreakdown
from amtml_pl.distill.timing import Spending
from amtml_pl.distill.whole_batch import WholeBatch
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.types import Batch, Step, TeacherOutputs
from amtml_pl.weighting.scheme import Weighting


class Observer(Callback):
    """Callback that reads what steps compute; it changes nothing and draws no random number."""

    def saw_step(self, step: Step, batch: Batch) -> None:
        """Receive a training step of the whole batch, and this process's share of it."""

    def saw_evaluation(self, batch: Batch, logits: Float[Tensor, "B K"]) -> None:
        """Receive the student's logits for this process's share of an evaluation batch."""


log = logging.getLogger(__name__)


class StudentModule(pl.LightningModule):
    """Student with its training step, evaluation, optimiser and checkpoint; a base class.

    Student, weighting and the projections inside the terms are submodules: trained, checkpointed, moved. The
    teacher source is not.

    Args:
        student: the network to train, with the taps that terms and weighting read.
        terms: the loss terms by name, already built.
        coef: the multiplier of each term; entries without a term are ignored.
        num_classes: K.
        optimizer: takes parameter groups, each with a ``name`` (student, terms, weighting).
        scheduler: takes the optimiser, gives a schedule that is stepped once an epoch; None keeps the rate.
        teachers: the teacher source; None trains without.
        weighting: weighs the teachers; needed where there are teachers. It has a learning rate of its own.
            Weight decay does not apply to it: its regularisation is a loss term.
        seed: of what is random in a step, such as dropout; every step starts from (seed, step).

    Attributes:
        blends_labels: whether the method can take the labels that mixup blends.
        steps_itself: whether the module steps its optimisers, and not Lightning.
        asks_weighting_alone: whether the teachers' weights are those that the weighting gives, unchanged.
        spent: what the fit costs; a callback, `amtml_pl.training.callbacks.Accounts`, keeps it.

    Raises:
        UserError: if there is no term, one has no coefficient or needs missing teachers, teachers come
            without a weighting, or a learned weighting without a term that trains it.
    """

    blends_labels: ClassVar[bool] = True
    steps_itself: ClassVar[bool] = False
    asks_weighting_alone: ClassVar[bool] = False

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
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.teacher_source = teachers
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")
        # Lightning's own mean over processes rounds the mean of their shares' sizes to a whole number.
        self.val_loss = MeanMetric(nan_strategy="disable")
        self.test_loss = MeanMetric(nan_strategy="disable")
        self.weight_statistics = None if teachers is None else WeightStatistics(teachers.names)
        self.means = EpochMeans()
        self.collapse: str | None = None
        self.seed = seed
        self.spent = Spending()

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""] | None:
        """Return a step's loss; None where the module steps its optimisers itself."""

    @abstractmethod
    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """Yield every trainable parameter of the student's optimiser once, in named groups."""

    @abstractmethod
    def break_down(self, batch: Batch) -> StepBreakdown:
        """Return a batch's step, summand by summand, without training."""

    def trainable_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return trainable parameters by part, the student first; no part is empty."""
        return trainable({"student": self.student})

    def loss_terms(self) -> dict[str, LossTerm]:
        """Return the terms by name, in order."""
        return cast("dict[str, LossTerm]", dict(self.terms.items()))

    @property
    def coefficients(self) -> dict[str, float]:
        """Multiplier of every summand of the student's loss, for the run's record."""
        return self.coef

    def total(self, values: Mapping[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """Return the sum of unweighted values, each times its coefficient."""
        coef = self.coefficients
        return torch.stack([coef[name] * value for name, value in values.items()]).sum()

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

    @property
    def needs_held_out(self) -> bool:
        """Return whether the weighting needs the teachers' outputs on the validation split."""
        return self.weighting is not None and self.weighting.needs_held_out

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

    @property
    def networks_trained(self) -> int:
        """Number of networks that a step trains, for the run's budget."""
        return 1

    @property
    def learns_weights(self) -> bool:
        """Return whether the teachers' weights are learned, so that a collapse deserves a warning."""
        return False

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure accuracy and cross-entropy on the validation split."""
        self.evaluate(batch, "val", self.val_accuracy, self.val_loss)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Measure accuracy and cross-entropy on the test split."""
        self.evaluate(batch, "test", self.test_accuracy, self.test_loss)

    def evaluate(self, batch: Batch, split: str, accuracy: MulticlassAccuracy, loss: MeanMetric) -> None:
        """Log ``<split>/acc`` in [0, 1] and ``<split>/loss``, averaged over all samples."""
        logits = self.student(batch.images).logits
        accuracy.update(logits, batch.labels)
        loss.update(F.cross_entropy(logits, batch.labels, reduction="none"))
        for observer in self.observers():
            observer.saw_evaluation(batch, logits)
        self.log(f"{split}/acc", accuracy, batch_size=len(batch), prog_bar=True)
        self.log(f"{split}/loss", loss, batch_size=len(batch))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return one optimiser over named groups, and the schedule."""
        optimizer = self.make_optimizer(list(self.parameter_groups()))
        if self.make_scheduler is None:
            return {"optimizer": optimizer}
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "epoch"},
        }

    def on_fit_start(self) -> None:
        """Move the teachers and their classifiers to the device of the batches."""
        if self.teacher_source is not None:
            self.teacher_source.to(self.device)
        for head in self.heads.values():
            head.to(self.device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the measurements of the unfinished epoch."""
        checkpoint["collapse"] = self.collapse
        # At an epoch's end its sums have been logged. (Lightning's own counts differ after a resume.)
        data = getattr(self.trainer, "datamodule", None)
        if getattr(data, "batches_done", 0):
            sums = {
                name: {state: getattr(metric, state).detach().cpu().clone() for state in metric.metric_state}
                for name, metric in self.epoch_metrics().items()
            }
            checkpoint["measured"] = {"means": self.means.state(), "metrics": sums}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the measurements of the unfinished epoch, if a fit is resumed."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        self.collapse = checkpoint["collapse"]
        if measured := checkpoint.get("measured"):
            self.means.load(measured["means"])
            for name, metric in self.epoch_metrics().items():
                for state, value in measured["metrics"][name].items():
                    setattr(metric, state, value.to(self.device))

    def epoch_metrics(self) -> dict[str, Metric]:
        """Return all metrics that are summed up over a training epoch, by name."""
        metrics: dict[str, Metric] = {"train/acc": self.train_accuracy}
        if self.weight_statistics is not None:
            metrics["weights"] = self.weight_statistics
        return metrics

    def on_train_epoch_end(self) -> None:
        """Log losses and teacher weights; warn when a learned weighting has collapsed."""
        if not self.automatic_optimization:  # a loop that steps its optimisers itself has to step these too
            schedules = self.lr_schedulers() or []
            for schedule in schedules if isinstance(schedules, list) else [schedules]:
                cast("Any", schedule).step()
        # Equal in all ranks, since each has the whole batch; averaged over them, since Lightning asks for it.
        means = self.means.take()
        self.log("loss/total", means.pop("total"), prog_bar=True, sync_dist=True)
        self.log_dict({f"loss/{name}": mean for name, mean in means.items()}, sync_dist=True)
        if self.weight_statistics is None:
            return
        summary = self.weight_statistics.summary()
        self.weight_statistics.reset()
        self.log_dict({f"weight/{name}": mean for name, mean in summary.mean.items()}, sync_dist=True)
        spread = {"weight_entropy": summary.entropy, "weight_above_0.95": summary.above_95}
        self.log_dict(spread, sync_dist=True)
        if self.learns_weights and summary.collapse != self.collapse:
            self.collapse = summary.collapse
            epoch = self.current_epoch + 1  # as the lines of the console count them
            log.warning("epoch %d/%s: %s", epoch, self.trainer.max_epochs, summary.describe())

    def seed_step(self, stage: int = 0) -> None:
        """Seed random numbers by (seed, step, stage), so that they repeat on a resume.

        Args:
            stage: 0 before a process's own share goes through the networks, which may have dropout; 1 once
                the shares are put together: what is drawn then is drawn alike in every process.
        """
        state = random_bits(self.seed, self.global_step)
        torch.manual_seed(random_bits(state, stage).item() >> 1)

    def gather_batch(self, share: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function from a process's share to the whole batch; maybe the identity."""
        trained_by_several = self._trainer is not None and self._trainer.world_size > 1
        return WholeBatch(share) if trained_by_several else lambda tensor: tensor

    def teacher_outputs_of(self, batch: Batch) -> TeacherOutputs | None:
        """Return the teachers' outputs, and count the seconds they took."""
        if self.teacher_source is None:
            return None
        with self.spent.on_teachers():
            return self.teacher_source(batch)

    def observers(self) -> list[Observer]:
        """Return the trainer's callbacks that observe every step and every evaluation."""
        callbacks: Iterable[Callback] = getattr(self._trainer, "callbacks", ())
        return [callback for callback in callbacks if isinstance(callback, Observer)]

    def update_metrics(self, step: Step, batch: Batch) -> None:
        """Update accuracy and teacher weights with a whole batch."""
        self.train_accuracy.update(step.student.logits, step.labels)
        self.log("train/acc", self.train_accuracy, on_step=False, on_epoch=True)
        if self.weight_statistics is not None and step.weights is not None:
            self.weight_statistics.update(step.weights)
        for observer in self.observers():
            observer.saw_step(step, batch)

    def log_losses(
        self, step: Step, values: Mapping[str, Float[Tensor, ""]], total: Float[Tensor, ""]
    ) -> None:
        """Add every unweighted term and the total to the epoch's means."""
        self.means.add({**values, "total": total}, len(step.labels))


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return half precision as float32; float64 stays as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def trainable(owners: Mapping[str, nn.Module]) -> dict[str, list[nn.Parameter]]:
    """Return the trainable parameters of each module that has any."""
    found = {name: [p for p in module.parameters() if p.requires_grad] for name, module in owners.items()}
    return {name: parameters for name, parameters in found.items() if parameters}
