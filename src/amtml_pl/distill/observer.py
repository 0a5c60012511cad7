"""Interface for callbacks that read what training and evaluation steps compute."""

from __future__ import annotations

from jaxtyping import Float
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from amtml_pl.types import Batch, Step


class Observer(Callback):
    """Callback that reads what steps compute; it changes nothing and draws no random number."""

    def saw_step(self, step: Step, batch: Batch) -> None:
        """Receive a training step of the whole batch, and this process's share of it."""

    def saw_evaluation(self, batch: Batch, logits: Float[Tensor, "B K"]) -> None:
        """Receive the student's logits for this process's share of an evaluation batch."""
