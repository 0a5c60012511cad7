"""What the training step asks of every weighting."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor, nn

from amtml_pl.types import ModelOutputs, TeacherOutputs, TensorShapes


class Weighting(nn.Module):
    """Maps a batch to one weight per sample and teacher; the rows sum to 1.

    A base class and not only a protocol for the same reason as `amtml_pl.losses.term.LossTerm`.
    """

    def student_taps(self) -> tuple[str, ...]:
        """The student's features that the scheme reads, as dotted module paths."""
        return ()

    def build(self, shapes: TensorShapes) -> None:
        """Creates the learned parameters, once, before the optimiser sees the scheme."""

    def forward(
        self, student: ModelOutputs, teachers: TeacherOutputs, labels: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B M"]:
        """The weights of the batch."""
        raise NotImplementedError
