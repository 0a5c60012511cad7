"""A distillation whose weights are learned by an optimiser of their own, apart from the student's."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, cast

import torch
from jaxtyping import Float
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor
from torch.optim import Optimizer

from amtml_pl.distill import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.types import Batch, Step


class TwoOptimizers(DistillModule):
    """A step of the student as `DistillModule` takes it, then one of what weighs the teachers.

    Args:
        arguments: those of `DistillModule`.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:  # noqa: ANN401
        super().__init__(*arguments, **named)
        self.automatic_optimization = False

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Both steps.

        Raises:
            UserError: if mixup blends the labels, or the loss is not finite.
        """
        if batch.mixed is not None:
            raise UserError(
                f"data.mixup blends the labels of two images; {type(self).__name__} weighs the teachers by "
                "one label per image.",
                fix="data.mixup=0, or loop=distill",
            )
        self.repeatable()
        student_optimizer, weights_optimizer = cast("list[LightningOptimizer]", self.optimizers())
        step = self.distill_step(batch)
        values = self.values(step)
        loss = self.total(values)
        if not torch.isfinite(loss):
            raise self.not_finite(batch, batch_idx, values)
        student_optimizer.zero_grad()
        self.manual_backward(loss)
        student_optimizer.step()
        self.count(batch, step.student.logits, step.weights)
        self.log_losses(batch, values, loss)
        if self.weights_learn_at(batch, batch_idx, step):
            weights_loss = self.train_weights(step)
            if not torch.isfinite(weights_loss):
                raise self.not_finite(batch, batch_idx, {"weights": weights_loss})
            weights_optimizer.zero_grad()
            self.manual_backward(weights_loss)
            weights_optimizer.step()
            self.log("loss/weights", weights_loss, on_step=False, on_epoch=True, batch_size=len(batch))

    def weights_learn_at(self, batch: Batch, batch_idx: int, step: Step) -> bool:
        """Whether what weighs the teachers learns at this step."""
        return True

    @abstractmethod
    def train_weights(self, step: Step) -> Float[Tensor, ""]:
        """The loss of what weighs the teachers, without a gradient to the student."""

    @abstractmethod
    def second_optimizer(self) -> Optimizer:
        """The optimiser of what weighs the teachers."""

    def configure_optimizers(self) -> Any:  # noqa: ANN401 - as Lightning's
        """The student's, with its schedule, and the other one."""
        optimizer = self.make_optimizer(list(self.parameter_groups()))
        schedules = [] if self.make_scheduler is None else [self.make_scheduler(optimizer)]
        return [optimizer, self.second_optimizer()], schedules

    def on_train_epoch_end(self) -> None:
        """Steps the schedule, which a loop of one's own has to do itself."""
        super().on_train_epoch_end()
        if self.make_scheduler is not None:
            cast("Any", self.lr_schedulers()).step()

    @property
    def regression(self) -> FeatureRegression:
        """The term by which the method weighs features; looked up, since it must not be a submodule twice.

        Raises:
            UserError: if it is not selected.
        """
        term = dict(self.terms.items()).get("regression")
        if not isinstance(term, FeatureRegression):
            raise UserError(
                f"{type(self).__name__} weighs features, and the term 'regression' is not selected.",
                fix="loss=[ce,kd_each,regression]",
            )
        return term

    @property
    def learns_weights(self) -> bool:
        """They are what the second optimiser is for."""
        return True
