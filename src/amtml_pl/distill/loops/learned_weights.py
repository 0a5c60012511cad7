"""Distillation whose teacher weights are learned by a second optimiser."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, cast

from jaxtyping import Float
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from amtml_pl.distill.loss_components import LossComponent, StepBreakdown, trainable
from amtml_pl.distill.non_finite import require_finite
from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss
from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.types import Batch, Step
from amtml_pl.weighting.scheme import positive_temperature
from amtml_pl.weighting.uniform import UniformWeighting


class LearnedWeightsLoop(DistillModule):
    """Loop that steps the student as `DistillModule` does, then the weights' networks.

    Args:
        arguments: those of `DistillModule`; among the terms are ``kd_each`` and ``regression``, by which
            outputs and features are weighed; the weighting is uniform, since this loop replaces it.
        temperature: T > 0 of the divergences by which the teachers are weighed.

    Raises:
        UserError: if there are no teachers, one of those terms or its coefficient is missing, or another
            weighting is selected.
    """

    blends_labels = False
    steps_itself = True
    uses_weighting_unchanged = False

    def __init__(self, *arguments: Any, temperature: float = 4.0, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.temperature = positive_temperature(temperature)
        self.learns_weights = True
        method = type(self).__name__
        for name, kind in (("kd_each", PerTeacherSoftTargetLoss), ("regression", FeatureRegression)):
            if not isinstance(self.loss_terms().get(name), kind) or not self.coef[name]:
                raise UserError(
                    f"{method} needs the loss term {name!r}, but this term is missing or has coefficient 0.",
                    fix=f"set 'loss=[ce,kd_each,regression]' coef.{name}=1.0, or choose method=mmkd",
                )
        if not isinstance(self.weighting, UniformWeighting):
            raise UserError(
                f"{method} weights the teachers itself and cannot use {type(self.weighting).__name__}.",
                fix="set weighting=uniform, or choose another loop: loop=distill",
            )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take both steps; raise a UserError if a loss is not finite."""
        self.seed_step()
        student_optimizer, weights_optimizer = cast("list[LightningOptimizer]", self.optimizers())
        step = self.distill_step(batch)
        values = self.values(step)
        loss = self.total(values)
        require_finite(self, loss, values, batch, batch_idx)
        student_optimizer.zero_grad()
        self.manual_backward(loss)
        student_optimizer.step()
        self.update_metrics(step, batch, values, loss)
        if (samples := self.weights_batch(batch, step)) is not None:
            weights_loss = self.weights_loss(samples, step, float(student_optimizer.param_groups[0]["lr"]))
            require_finite(self, weights_loss, {"weights": weights_loss}, batch, batch_idx)
            weights_optimizer.zero_grad()
            self.manual_backward(weights_loss)
            weights_optimizer.step()
            self.means.add({"loss/weights": weights_loss}, len(step.labels))

    def weights_batch(self, batch: Batch, step: Step) -> Batch | None:
        """Return the samples for this step's training of the weights; None for no training."""
        return batch

    @abstractmethod
    def weights_loss(self, batch: Batch, step: Step, lr: float) -> Float[Tensor, ""]:
        """Return the loss of the networks that weigh the teachers, without student gradients.

        Args:
            batch: the samples that `weights_batch` gave.
            step: the student's step, as `distill_step` returned it.
            lr: learning rate of the student.
        """

    @abstractmethod
    def weighting_networks(self) -> dict[str, nn.Module]:
        """Return the networks that weigh the teachers, by name."""

    @abstractmethod
    def second_optimizer(self) -> Optimizer:
        """Return the optimiser of the networks that weigh the teachers."""

    def trainable_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return trainable parameters by group, those that weigh the teachers included."""
        return {**super().trainable_groups(), **trainable(self.weighting_networks())}

    def break_down(self, batch: Batch) -> StepBreakdown:
        """Return the student's terms, and the loss of the teachers' weights."""
        found = super().break_down(batch)
        step = cast("Step", found.step)
        lr = float(self.make_optimizer(list(self.parameter_groups())).param_groups[0]["lr"])
        loss = self.weights_loss(replace(batch, teachers=step.teachers), step, lr)
        component = LossComponent("weights", loss, tuple(self.weighting_networks()))
        return StepBreakdown([*found.components, component], step)

    def configure_optimizers(self) -> Any:
        """Return the student's optimiser with its schedule, and the weights' optimiser."""
        optimizer = self.make_optimizer(list(self.parameter_groups()))
        schedules = [] if self.make_scheduler is None else [self.make_scheduler(optimizer)]
        return [optimizer, self.second_optimizer()], schedules

    @property
    def regression(self) -> FeatureRegression:
        """Term whose features the method weighs; looked up to stay one submodule."""
        return cast("FeatureRegression", self.terms["regression"])
