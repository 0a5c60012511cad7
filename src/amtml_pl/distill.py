"""The training step: student, teachers, weights, losses. One module for every method that steps once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from amtml_pl.composition import TeacherSource, check_composition
from amtml_pl.features import TappedNetwork
from amtml_pl.losses.term import LossTerm
from amtml_pl.student_module import StudentModule, at_least_float32
from amtml_pl.types import Batch, Step
from amtml_pl.weighting.scheme import Weighting


class DistillModule(StudentModule):
    """Trains a student from labels, and from teachers where there are any.

    Student, weighting and the projections inside the terms are submodules: trained, checkpointed,
    moved. The teacher source is not, whatever it is made of.

    Args:
        student: the network to train, with the taps that terms and weighting read.
        terms: the loss terms by name, already built.
        coef: the multiplier of each term; entries without a term are ignored.
        num_classes: K.
        optimizer: takes parameter groups, each with a ``name`` (student, terms, weighting).
        scheduler: takes the optimiser, gives a schedule that is stepped once an epoch; None keeps the rate.
        teachers: the teacher source; None trains from labels alone.
        weighting: weighs the teachers; needed where there are teachers.
        weighting_lr: learning rate of a learned weighting; None takes the student's. Weight decay does not
            apply to it: its regularisation is a loss term.
        seed: of what is random in a step, such as dropout; every step starts from (seed, step).

    Raises:
        UserError: if there is no term, one has no coefficient or needs teachers that are not there, teachers
            come without a weighting, or a learned weighting without a term that trains it.
    """

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
        weighting_lr: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(student, num_classes, optimizer, scheduler, teachers, seed)
        check_composition(terms, coef, teachers, weighting)
        self.terms = nn.ModuleDict(dict(terms))
        self.coef = {name: float(coef[name]) for name in terms}
        self.weighting = weighting if teachers is not None else None
        self.weighting_lr = weighting_lr
        self.heads: dict[str, nn.Module] = {}  # the teachers': in no optimiser and no checkpoint

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""] | None:
        """One step, in the order a batch travels."""
        self.repeatable()
        step = self.distill_step(batch)
        values = self.values(step)
        loss = self.total(values)
        if not torch.isfinite(loss):
            raise self.not_finite(batch, batch_idx, values)
        self.count(batch, step.student.logits, step.weights)
        self.log_losses(batch, values, loss)
        return loss

    def distill_step(self, batch: Batch) -> Step:
        """What the student and the teachers give for a batch, and how the teachers are weighted."""
        student = self.student(batch.images)
        with full_precision(batch):
            teachers = self.ask_teachers(batch)
            student = student.map(at_least_float32)
            teachers = None if teachers is None else teachers.map(at_least_float32)
            weights = None
            if teachers is not None and self.weighting is not None:
                weights = self.weighting(student, teachers, batch.labels)
            return Step(
                student=student,
                labels=batch.labels,
                teachers=teachers,
                weights=weights,
                weighting_norm=self.weighting_norm(),
                epoch=self.current_epoch,
                mixed=batch.mixed,
                prior=None if self.weighting is None else self.weighting.prior,
            )

    def values(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        """Every term of a step, unweighted."""
        with full_precision(step.labels):
            return {name: term(step) for name, term in self.terms.items()}

    def total(self, values: Mapping[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """The sum of the terms, each times its coefficient."""
        return torch.stack([self.coef[name] * value for name, value in values.items()]).sum()

    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """The student, what the terms learn, what the weighting learns: each trainable parameter once."""
        yield {"name": "student", "params": list(self.student.parameters())}
        if projections := list(self.terms.parameters()):
            yield {"name": "terms", "params": projections}
        if self.weighting is not None and (factors := list(self.weighting.parameters())):
            group: dict[str, Any] = {"name": "weighting", "params": factors, "weight_decay": 0.0}
            yield group if self.weighting_lr is None else {**group, "lr": self.weighting_lr}

    def weighting_norm(self) -> Float[Tensor, ""] | None:
        """Squared L2 norm of the weighting's parameters; None where it learns nothing."""
        parameters = [] if self.weighting is None else list(self.weighting.parameters())
        return torch.stack([p.square().sum() for p in parameters]).sum() if parameters else None

    def head_names(self) -> tuple[str, ...]:
        """The hints whose teachers' classifiers a term runs, by flat name."""
        return tuple(dict.fromkeys(name for term in self.loss_terms() for name in term.head_names()))

    def loss_terms(self) -> Iterator[LossTerm]:
        """The terms in order."""
        yield from cast("Iterable[LossTerm]", self.terms.values())

    def take_heads(self, heads: Mapping[str, nn.Module]) -> None:
        """Gives the terms the teachers' own classifiers."""
        self.heads = dict(heads)
        for term in self.loss_terms():
            term.take_heads(self.heads)

    def on_fit_start(self) -> None:
        """Puts the teachers' classifiers where the batches will be, as the teachers."""
        super().on_fit_start()
        for head in self.heads.values():
            head.to(self.device)

    @property
    def needs_held_out(self) -> bool:
        """Whether the weighting asks for them."""
        return self.weighting is not None and self.weighting.needs_held_out

    def judge_teachers(
        self,
        accuracy: Mapping[str, float],
        outputs: Callable[[], tuple[Float[Tensor, "N M K"], Int64[Tensor, " N"]]],
    ) -> None:
        """Lets the weighting judge them."""
        if self.weighting is not None:
            self.weighting.judge(accuracy)
            if self.needs_held_out:
                self.weighting.judge_outputs(*outputs())

    @property
    def learns_weights(self) -> bool:
        """Whether the weighting has parameters."""
        return self.weighting_norm() is not None


def full_precision(on: Batch | Tensor) -> torch.autocast:
    """Whatever the trainer's precision: sums over classes, pairs and angles lose too much in half of it.

    Live teachers run in it too, as they do for the cache.
    """
    device = on.images.device if isinstance(on, Batch) else on.device
    return torch.autocast(device.type, enabled=False)
