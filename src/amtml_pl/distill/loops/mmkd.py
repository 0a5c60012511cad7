"""MMKD: networks that weigh the teachers learn from the student's hard samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from amtml_pl.distill.loops.hard_samples import HardSamples
from amtml_pl.distill.loops.learned_weights import LearnedWeightsLoop
from amtml_pl.distill.step import full_precision
from amtml_pl.errors import UserError
from amtml_pl.losses.kd_each import soft_target_losses
from amtml_pl.losses.term import require_teachers
from amtml_pl.models.layout import eager_execution, local_batch_norm
from amtml_pl.models.state import evaluation_mode, frozen
from amtml_pl.types import Batch, ModelOutputs, Step, TeacherOutputs


class MMKD(LearnedWeightsLoop):
    """`DistillModule` whose weights, of outputs and of features, come from two small networks.

    After Zhang et al., "Adaptive Multi-Teacher Knowledge Distillation with Meta-Learning" (ICME 2023), and
    its code; formulas: ``docs/methods/mmkd.md``. Every few steps these networks take a meta step, on
    samples that the student gets wrong. Copies of its parameters take two steps by the matching terms and one
    by cross-entropy; the gradient of the cross-entropy then reaches the networks through those steps.

    Departures: the virtual steps are plain gradient descent, without momentum and weight decay, and move the
    student alone; the regressors stay, in evaluation mode; the feature network reads the mean, deviation and
    maximum of a sample's cosine similarities to its batch, so that a batch may have any size; maps of other
    sizes are compared as in `FeatureRegression`. The network for the outputs reads 0 as the logit of a class
    that a teacher does not know.

    Args:
        arguments: those of `LearnedWeightsLoop`.
        meta_every: steps of the student between meta steps, 1 or more.
        buffer_size: number of hard samples that are kept, 2 or more.
        meta_lr: learning rate of the two networks (Adam).
        meta_weight_decay: their weight decay.

    Raises:
        UserError: as `LearnedWeightsLoop`, or if a number is below its range.
    """

    def __init__(
        self,
        *arguments: Any,
        meta_every: int = 5,
        buffer_size: int = 256,
        meta_lr: float = 1e-3,
        meta_weight_decay: float = 1e-4,
        **named: Any,
    ) -> None:
        super().__init__(*arguments, **named)
        if meta_every < 1 or buffer_size < 2:
            raise UserError(
                f"A setting of loop=mmkd is too small (got loop.meta_every={meta_every} "
                f"loop.buffer_size={buffer_size}, expected loop.meta_every ≥ 1 and loop.buffer_size ≥ 2).",
                fix="loop.meta_every=5 loop.buffer_size=256",
            )
        self.meta_every = meta_every
        self.meta_lr, self.meta_weight_decay = meta_lr, meta_weight_decay
        M, K = len(self.regression.regressors), self.num_classes
        self.for_logits = weight_network((M + 1) * K, M)
        self.for_features = weight_network((M + 1) * STATISTICS, M)
        self.hard = HardSamples(buffer_size)

    def distill_step(self, batch: Batch) -> Step:
        """Return the step with the networks' weights, which are constants for the student."""
        step = super().distill_step(batch)
        with torch.no_grad(), full_precision(batch):
            weights, feature_weights = self.weigh(step.student, require_teachers(step)[0])
        return replace(step, weights=weights, feature_weights=feature_weights)

    def weigh(
        self, student: ModelOutputs, teachers: TeacherOutputs
    ) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]]:
        """Return the weights of outputs and of features, each (B, M), differentiable in the networks."""
        known = teachers.logits.masked_fill(teachers.logits == -torch.inf, 0.0)
        logits = torch.cat([known, student.logits.detach()[:, None]], dim=1).flatten(1)
        maps = [teachers.hints[name] for name in self.regression.names]
        maps.append(student.features[self.regression.student_stage].detach())
        statistics = torch.cat([similarity_statistics(each) for each in maps], dim=1)
        return F.softmax(self.for_logits(logits), dim=1), F.softmax(self.for_features(statistics), dim=1)

    def on_train_start(self) -> None:
        """Move a checkpoint's hard samples to the device of the batches."""
        if self.hard.kept is not None:
            self.hard.kept = self.hard.kept.to(self.device)

    def weights_batch(self, batch: Batch, step: Step) -> Batch | None:
        """Store the batch's hard samples; return some every few steps, else None."""
        whole = replace(batch, teachers=None).map(self.gather_batch(batch.labels))
        wrong = step.student.logits.argmax(dim=1) != step.labels
        self.hard.keep(replace(whole, teachers=step.teachers), wrong)
        steps = self.trainer.fit_loop.epoch_loop.total_batch_idx + 1  # over all epochs and sessions
        due = self.hard.is_full and steps % self.meta_every == 0
        return self.hard.some(len(step.labels)) if due else None

    def weights_loss(self, batch: Batch, step: Step, lr: float) -> Float[Tensor, ""]:
        """Return `meta_loss`, with gradients for the two networks alone."""
        with full_precision(batch), frozen(self.regression):  # the regressors learn from the student's step
            return self.meta_loss(batch, lr)

    def meta_loss(self, batch: Batch, lr: float) -> Float[Tensor, ""]:
        """Return the student's cross-entropy after its virtual steps, a scalar."""
        parameters = {n: p.detach().requires_grad_() for n, p in self.student.named_parameters()}
        for matching in (True, True, False):
            student = self.virtual_outputs(parameters, batch)
            cross_entropy = F.cross_entropy(student.logits, batch.labels)
            loss = self.matching_loss(student, batch) if matching else cross_entropy
            moved = list(parameters.values())
            gradients = torch.autograd.grad(loss, moved, create_graph=True, allow_unused=True)
            moved = [p if g is None else p - lr * g for p, g in zip(moved, gradients, strict=True)]
            parameters = dict(zip(parameters, moved, strict=True))
        return F.cross_entropy(self.virtual_outputs(parameters, batch).logits, batch.labels)

    def virtual_outputs(self, parameters: Mapping[str, Tensor], batch: Batch) -> ModelOutputs:
        """Return the student's outputs with other parameters; its running statistics stay unchanged.

        Compilation and synchronised batch norm are off: torch has no second derivative of either. Every
        process has the whole batch here.
        """
        buffers = {name: buffer.clone() for name, buffer in self.student.named_buffers()}
        with eager_execution(), local_batch_norm(self.student):
            outputs: ModelOutputs = functional_call(self.student, {**parameters, **buffers}, (batch.images,))
        return outputs

    def matching_loss(self, student: ModelOutputs, batch: Batch) -> Float[Tensor, ""]:
        """Return the loss terms that depend on the weights, with gradients to their networks."""
        teachers = cast("TeacherOutputs", batch.teachers)
        weights, feature_weights = self.weigh(student, teachers)
        labels, epoch = batch.labels, self.current_epoch
        step = Step(student=student, labels=labels, epoch=epoch, teachers=teachers, weights=weights)
        divergence = soft_target_losses(student.logits, teachers.logits, self.temperature)
        with evaluation_mode(self.regression):
            errors = self.regression.errors(step)
        each = (self.coef["kd_each"] * weights * divergence).sum(dim=1)
        features = (self.coef["regression"] * feature_weights * errors).sum(dim=1)
        return (each + features).mean()

    def second_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of both networks."""
        both = [*self.for_logits.parameters(), *self.for_features.parameters()]
        return torch.optim.Adam(both, lr=self.meta_lr, weight_decay=self.meta_weight_decay)

    def weighting_networks(self) -> dict[str, nn.Module]:
        """Return the network for the outputs and the one for the features."""
        return {"logits-network": self.for_logits, "features-network": self.for_features}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the hard samples too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["hard_samples"] = self.hard.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the hard samples too."""
        super().on_load_checkpoint(checkpoint)
        self.hard.load(checkpoint["hard_samples"])


STATISTICS = 3


def similarity_statistics(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 3"]:
    """Return mean, deviation and maximum of each sample's cosine similarities to the others, (B, 3)."""
    rows = F.normalize(features.flatten(1), dim=1)
    B = len(rows)
    if B == 1:
        return rows.new_zeros(1, STATISTICS)
    others = (rows @ rows.T)[~torch.eye(B, dtype=torch.bool, device=rows.device)].view(B, B - 1)
    return torch.stack([others.mean(dim=1), others.std(dim=1, unbiased=False), others.amax(dim=1)], dim=1)


def weight_network(inputs: int, teachers: int) -> nn.Sequential:
    """Return a network with one hidden layer, half as wide, and one output per teacher."""
    hidden = max(inputs // 2, 1)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, teachers))
