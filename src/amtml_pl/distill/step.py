"""Training step: student, teachers, weights, losses; for every method that steps once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.distill.loss_components import LossComponent, StepBreakdown, trainable
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.non_finite import require_finite
from amtml_pl.losses.term import LossTerm
from amtml_pl.types import Batch, Step


class DistillModule(StudentModule):
    """Student trained from labels and any teachers, by one optimiser."""

    uses_weighting_unchanged: ClassVar[bool] = True

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""] | None:
        """Return the loss of one step, in the order a batch travels."""
        self.seed_step()
        step = self.distill_step(batch)
        values = self.values(step)
        loss = self.total(values)
        require_finite(self, loss, values, batch, batch_idx)
        self.update_metrics(step, batch, values, loss)
        return loss

    def distill_step(self, batch: Batch) -> Step:
        """Return a batch's student and teacher outputs with the teachers' weights.

        Where several processes share a batch, the outputs of all are gathered: weightings and terms see
        the whole batch and return what they return in one process.
        """
        student = self.student(batch.images)
        with full_precision(batch):
            teachers = self.teacher_outputs_of(batch)
            whole = self.gather_batch(batch.labels)
            student, labels = student.map(at_least_float32).map(whole), whole(batch.labels)
            teachers = None if teachers is None else teachers.map(at_least_float32).map(whole)
            self.seed_step(stage=1)
            weights = prior = None
            if teachers is not None and self.weighting is not None:
                weights, prior = self.weighting(student, teachers, labels), self.weighting.prior
            return Step(
                student=student,
                labels=labels,
                epoch=self.current_epoch,
                teachers=teachers,
                weights=weights,
                weighting_norm=self.weighting_norm(),
                mixed=batch.mixed,
                prior=prior,
            )

    def values(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        """Return the unweighted value of every term."""
        with full_precision(step.labels):
            return {name: term(step) for name, term in self.terms.items()}

    def break_down(self, batch: Batch) -> StepBreakdown:
        """Return the loss terms whose coefficient is not 0, each times its coefficient."""
        self.seed_step()
        step = self.distill_step(batch)
        values = self.values(step)
        components = [
            LossComponent(name, self.coef[name] * values[name], self.expected_groups(name, term))
            for name, term in self.loss_terms().items()
            if self.coef[name]
        ]
        return StepBreakdown(components, step)

    def trainable_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return trainable parameters of student, terms and weighting, by group."""
        learners = {f"terms.{name}": term for name, term in self.terms.items()}
        if self.weighting is not None:
            learners["weighting"] = self.weighting
        return {**super().trainable_groups(), **trainable(learners)}

    def expected_groups(self, name: str, term: LossTerm) -> tuple[str, ...]:
        """Return the names of the parameter groups that a term should train."""
        groups = self.trainable_groups()
        expected = ["student"] if term.trains_student else []
        if term.learns or f"terms.{name}" in groups:
            expected.append(f"terms.{name}")
        if term.needs_learned_weighting or (term.is_weighting_objective and "weighting" in groups):
            expected.append("weighting")
        return tuple(expected)

    def parameter_groups(self) -> Iterator[dict[str, Any]]:
        """Yield optimiser groups of student, terms and weighting, each parameter once."""
        yield from super().parameter_groups()
        if projections := list(self.terms.parameters()):
            yield {"name": "terms", "params": projections}
        if self.weighting is not None and (factors := list(self.weighting.parameters())):
            group: dict[str, Any] = {"name": "weighting", "params": factors, "weight_decay": 0.0}
            yield group if self.weighting.lr is None else {**group, "lr": self.weighting.lr}

    def weighting_norm(self) -> Float[Tensor, ""] | None:
        """Return the squared L2 norm of the weighting's parameters; None without any."""
        parameters = [] if self.weighting is None else list(self.weighting.parameters())
        return torch.stack([p.square().sum() for p in parameters]).sum() if parameters else None


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return half precision as float32; float64 stays as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def full_precision(on: Batch | Tensor) -> torch.autocast:
    """Return a context that runs in float32 under any trainer precision.

    Sums over classes, pairs and angles lose too much in half precision.
    Live teachers run in it too, as they do for the cache.
    """
    device = on.images.device if isinstance(on, Batch) else on.device
    return torch.autocast(device.type, enabled=False)
