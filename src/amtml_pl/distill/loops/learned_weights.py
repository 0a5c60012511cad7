"""Distillation whose teacher weights are learned by an optimiser of their own."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from amtml_pl.distill.module import trainable
from amtml_pl.distill.non_finite import broken_loss
from amtml_pl.distill.objectives import LossComponent, StepBreakdown
from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.losses.soft_targets_each import PerTeacherSoftTargetLoss
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
    asks_weighting_alone = False

    def __init__(self, *arguments: Any, temperature: float = 4.0, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.temperature = positive_temperature(temperature)
        wanted = {"kd_each": PerTeacherSoftTargetLoss, "regression": FeatureRegression}
        method = type(self).__name__
        for name, kind in wanted.items():
            if not isinstance(self.loss_terms().get(name), kind) or not self.coef[name]:
                raise UserError(
                    f"{method} weighs the teachers' outputs and features, and the term {name!r} is not "
                    "selected or its coefficient is 0.",
                    fix=f"loss=[ce,kd_each,regression] coef.{name}=1.0, or method=mmkd, method=mtkd_rl",
                )
        if not isinstance(self.weighting, UniformWeighting):
            raise UserError(
                f"{method} weighs the teachers itself; {type(self.weighting).__name__} would not be asked.",
                fix="weighting=uniform, or loop=distill",
            )

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Take both steps; a loss that is not finite is a UserError."""
        self.seed_step()
        student_optimizer, weights_optimizer = cast("list[LightningOptimizer]", self.optimizers())
        step = self.distill_step(batch)
        values = self.values(step)
        loss = self.total(values)
        if not torch.isfinite(loss):
            raise broken_loss(self, values, batch, batch_idx)
        student_optimizer.zero_grad()
        self.manual_backward(loss)
        student_optimizer.step()
        self.update_metrics(step, batch)
        self.log_losses(step, values, loss)
        samples = self.to_judge(batch, step)
        if samples is not None:
            weights_loss = self.weights_loss(samples, step, float(student_optimizer.param_groups[0]["lr"]))
            if not torch.isfinite(weights_loss):
                raise broken_loss(self, {"weights": weights_loss}, batch, batch_idx)
            weights_optimizer.zero_grad()
            self.manual_backward(weights_loss)
            weights_optimizer.step()
            self.means.add({"weights": weights_loss}, len(step.labels))

    def to_judge(self, batch: Batch, step: Step) -> Batch | None:
        """Return the samples for this step's training of the weights; None for no training."""
        return batch

    @abstractmethod
    def weights_loss(self, batch: Batch, step: Step, lr: float) -> Float[Tensor, ""]:
        """Return the loss of the networks that weigh the teachers, without student gradients."""

    @abstractmethod
    def weighers(self) -> dict[str, nn.Module]:
        """Return the networks that weigh the teachers, by name."""

    @abstractmethod
    def second_optimizer(self) -> Optimizer:
        """Return the optimiser of the networks that weigh the teachers."""

    def trainable_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return trainable parameters by part, those that weigh the teachers included."""
        return {**super().trainable_groups(), **trainable(self.weighers())}

    def break_down(self, batch: Batch) -> StepBreakdown:
        """Return the student's terms, and the loss of the teachers' weights."""
        found = super().break_down(batch)
        if found.step is None:
            return found
        lr = float(self.make_optimizer(list(self.parameter_groups())).param_groups[0]["lr"])
        loss = self.weights_loss(replace(batch, teachers=found.step.teachers), found.step, lr)
        return replace(
            found, components=[*found.components, LossComponent("weights", loss, tuple(self.weighers()))]
        )

    def configure_optimizers(self) -> Any:
        """Return the student's optimiser with its schedule, and the weights' optimiser."""
        optimizer = self.make_optimizer(list(self.parameter_groups()))
        schedules = [] if self.make_scheduler is None else [self.make_scheduler(optimizer)]
        return [optimizer, self.second_optimizer()], schedules

    @property
    def regression(self) -> FeatureRegression:
        """Term whose features the method weighs; looked up to stay one submodule."""
        return cast("FeatureRegression", self.terms["regression"])

    @property
    def learns_weights(self) -> bool:
        """Return whether the weights are learned: always, by the second optimiser."""
        return True
