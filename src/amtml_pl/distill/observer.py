"""Who may look at the steps of a fit without taking part in them."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from amtml_pl.types import Batch, Step


class Observer(Protocol):
    """Sees what steps have computed anyway; must change nothing, draw no random number, wait for no rank."""

    def saw_step(self, step: Step, batch: Batch) -> None:
        """A training step: of the whole batch, and this process's share of the batch itself."""

    def saw_evaluation(self, batch: Batch, logits: Float[Tensor, "B K"]) -> None:
        """The student's logits for this process's share of a validation or test batch."""
