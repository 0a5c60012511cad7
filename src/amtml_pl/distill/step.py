"""Training step: student, teachers, weights, losses; for every method that steps once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.distill.checked_calls import value_of, weights_of
from amtml_pl.distill.compiled import Candidate, CompiledStep, Part
from amtml_pl.distill.loss_components import LossComponent, StepBreakdown, trainable
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.non_finite import require_finite
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.state import buffers_restored
from amtml_pl.system.ranks import rank, world_size
from amtml_pl.types import Batch, ModelOutputs, Step, TeacherOutputs

T = TypeVar("T")


class DistillModule(StudentModule):
    """Student trained from labels and any teachers, by one optimiser."""

    uses_weighting_unchanged: ClassVar[bool] = True

    def compile_full_batches(self, batch_size: int, *, required: bool) -> None:
        """Compile the step at the first full batch of the fit.

        Args:
            batch_size: images of a full batch, over all ranks.
            required: True to raise a UserError where nothing compiles.
        """
        rows = len(range(rank(), batch_size, world_size()))
        parts: tuple[Part, ...] = ("step", "student") if world_size() == 1 else ("student",)
        self.compiled = CompiledStep(rows, parts, required=required)

    def training_step(self, batch: Batch, batch_idx: int) -> Float[Tensor, ""] | None:
        """Return the loss of one step, in the order a batch travels."""
        self.seed_step()
        with full_precision(batch):
            teachers = self.teacher_outputs_of(batch)
        if self.compiled is not None and self.compiled.is_due(len(batch)):
            self.compile_step(self.compiled, batch, teachers)
        inputs = batch, teachers, self.current_epoch
        step, values = self.run("step", len(batch), self.step_and_values, *inputs)
        loss = self.total(values)  # outside: a callback may change a coefficient
        require_finite(self, loss, values, batch, batch_idx)
        self.update_metrics(step, batch, values, loss)
        return loss

    def compile_step(self, compiled: CompiledStep, batch: Batch, teachers: TeacherOutputs | None) -> None:
        """Compile the step for batches of this size; parameters, buffers and random numbers stay."""
        start = time.perf_counter()
        candidates: dict[Part, Candidate] = {
            "step": (self.step_and_values, lambda f, epoch: self.total(f(batch, teachers, epoch)[1])),
            "student": (self.student.forward, lambda f, _: f(batch.images).logits.sum()),
        }
        trained = [parameter for group in self.trainable_groups().values() for parameter in group]
        with buffers_restored(self), torch.random.fork_rng():
            if self.draws_random_numbers(batch, teachers):
                del candidates["step"]  # compiled as a whole, it would not seed them again
            compiled.compile(candidates, trained, self.current_epoch)
        self.spent.count_compilation(time.perf_counter() - start)

    def draws_random_numbers(self, batch: Batch, teachers: TeacherOutputs | None) -> bool:
        """Return True if the weighting or a term draws random numbers."""
        with torch.no_grad():
            student = self.student(batch.images)
        self.seed_step(stage=1)
        before = torch.get_rng_state()
        self.values(self.assemble_step(batch, student, teachers, self.current_epoch))
        return not torch.equal(before, torch.get_rng_state())

    def run(self, part: Part, rows: int, function: Callable[..., T], *inputs: Any) -> T:
        """Return ``function(*inputs)``, compiled if the part is and the batch is full."""
        if self.compiled is None:
            return function(*inputs)
        return cast("T", self.compiled.run(part, rows, function, *inputs))

    def step_and_values(
        self, batch: Batch, teachers: TeacherOutputs | None, epoch: int
    ) -> tuple[Step, dict[str, Float[Tensor, ""]]]:
        """Return a step without gradients, and the unweighted value of every term."""
        student = self.run("student", len(batch), self.student, batch.images)
        step = self.assemble_step(batch, student, teachers, epoch)
        values = self.values(step)
        seen = replace(
            step,
            student=ModelOutputs(step.student.logits.detach()),
            weights=None if step.weights is None else step.weights.detach(),
            weighting_norm=None,
        )
        return seen, values

    def distill_step(self, batch: Batch) -> Step:
        """Return a batch's student and teacher outputs with the teachers' weights, with gradients."""
        with full_precision(batch):
            teachers = self.teacher_outputs_of(batch)
        return self.assemble_step(batch, self.student(batch.images), teachers, self.current_epoch)

    def assemble_step(
        self, batch: Batch, student: ModelOutputs, teachers: TeacherOutputs | None, epoch: int
    ) -> Step:
        """Weight the teachers for a batch and the outputs of student and teachers.

        Where several processes share a batch, the outputs of all are gathered: weightings and terms see
        the whole batch and return what they return in one process.
        """
        with full_precision(batch):
            whole = self.gather_batch(batch.labels)
            student, labels = student.map(at_least_float32).map(whole), whole(batch.labels)
            teachers = None if teachers is None else teachers.map(at_least_float32).map(whole)
            self.seed_step(stage=1)
            weights = prior = None
            if teachers is not None and self.weighting is not None:
                weights = weights_of(self.weighting, student, teachers, labels)
                prior = self.weighting.prior(teachers)
            return Step(
                student=student,
                labels=labels,
                epoch=epoch,
                teachers=teachers,
                weights=weights,
                weighting_norm=self.weighting_norm(),
                mixed=batch.mixed,
                prior=prior,
            )

    def values(self, step: Step) -> dict[str, Float[Tensor, ""]]:
        """Return the unweighted value of every term."""
        with full_precision(step.labels):
            return {name: value_of(name, term, step) for name, term in self.terms.items()}

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
