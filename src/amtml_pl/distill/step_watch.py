"""Non-finite numbers on an accelerator: noted there, and read every few steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.optim import Optimizer

AT_ONCE = ("cpu",)  # the devices whose numbers are read in every step, as nothing waits for them
MOST_STEPS = 50  # between two readings


@dataclass(frozen=True)
class Position:
    """Place of a step in a fit."""

    epoch: int
    step: int
    batch_idx: int


@dataclass
class NotedStep:
    """A step since the last reading; its batch can be made again from its index."""

    at: Position
    index: Int64[Tensor, " B"]
    losses: list[tuple[Tensor, Mapping[str, Tensor]]] = field(default_factory=list)  # with their terms
    broken: Tensor | None = None  # the flag at its end


class StepWatch:
    """A flag on an accelerator, set by the first non-finite number of a fit.

    Once it is set, gradients change no weight: a fused optimiser leaves its update out, as it does for a
    gradient scaler. Any other one gets gradients of zero, so that momentum and decay still move the weights
    a little until the flag is read. Nothing waits for the device before `first_broken`.
    """

    def __init__(self, device: torch.device) -> None:
        self.broken = torch.zeros((), device=device)
        self.steps: list[NotedStep] = []

    def begin(self, at: Position, index: Int64[Tensor, " B"]) -> None:
        """Note a step of the batch with these samples."""
        self.steps.append(NotedStep(at, index))

    def note_loss(self, loss: Float[Tensor, ""], values: Mapping[str, Float[Tensor, ""]]) -> None:
        """Note a loss and its terms."""
        self.steps[-1].losses.append(
            (loss.detach(), {name: value.detach() for name, value in values.items()})
        )
        self.note(loss.detach())

    def protect_weights(self, optimizer: Optimizer) -> None:
        """Note the gradients of an optimiser, and keep broken ones from its weights."""
        if not (gradients := gradients_of(optimizer)):
            return
        self.note(nn.utils.get_total_norm(gradients, math.inf))
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            cast("Any", optimizer).found_inf = self.broken
            return
        for gradient in gradients:
            gradient.masked_fill_(self.broken.bool(), 0.0)

    def note(self, number: Float[Tensor, ""]) -> None:
        """Set the flag if the number is not finite."""
        self.broken.masked_fill_(~torch.isfinite(number), 1.0)

    def end(self) -> None:
        """End the step."""
        self.steps[-1].broken = self.broken.clone()

    def first_broken(self) -> NotedStep | None:
        """Wait for the device; return the first step that broke since the last call."""
        steps, self.steps = self.steps, []
        return next((step for step in steps if step.broken), None) if self.broken else None


def gradients_of(optimizer: Optimizer) -> list[Tensor]:
    """Return the gradients that an optimiser will use."""
    return [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
