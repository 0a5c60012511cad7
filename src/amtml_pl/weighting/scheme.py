"""Interface between the training step and every weighting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from amtml_pl.types import ModelOutputs, TeacherOutputs, TensorShapes


class Weighting(nn.Module):
    """Map from a batch to one weight per sample and teacher; rows sum to 1.

    A base class and not only a protocol for the same reason as `amtml_pl.losses.term.LossTerm`.

    Attributes:
        reads_labels: whether the weights depend on the labels, which mixup would blend.
        weighs_batches: whether the weights of a sample depend on the others of its batch, or on chance.
        needs_held_out: whether `fit_to_held_out` must be called before the fit.
        lr: learning rate of what it learns; None takes the student's.
        orders_teachers: whether something of the scheme belongs to a teacher by its position, so that the
            columns do not simply follow the teachers when these change places.
    """

    reads_labels: ClassVar[bool] = False
    weighs_batches: ClassVar[bool] = False
    needs_held_out: bool = False
    lr: float | None = None
    orders_teachers: ClassVar[bool] = False

    def student_taps(self) -> tuple[str, ...]:
        """Return the student's features that the scheme reads, as dotted module paths."""
        return ()

    def build(self, shapes: TensorShapes) -> None:
        """Create the learned parameters, once, before the optimiser gets them."""

    @property
    def prior(self) -> Float[Tensor, " M"] | None:
        """Weights (M,) that learned weights are drawn to; None means uniform."""
        return None

    def set_teacher_accuracy(self, accuracy: Mapping[str, float]) -> None:
        """Take the teachers' accuracy, once, before the fit and after a resume.

        Args:
            accuracy: of each teacher by name, on the validation split, in [0, 1].
        """

    def fit_to_held_out(self, logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> None:
        """Fit to the teachers' validation outputs, once, before the fit and after a resume."""

    def forward(
        self, student: ModelOutputs, teachers: TeacherOutputs, labels: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B M"]:
        """Return the teachers' weights for a batch, (B, M)."""
        raise NotImplementedError
