"""What the training step asks of every weighting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from amtml_pl.types import ModelOutputs, TeacherOutputs, TensorShapes


class Weighting(nn.Module):
    """Maps a batch to one weight per sample and teacher; the rows sum to 1.

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
        """The student's features that the scheme reads, as dotted module paths."""
        return ()

    def build(self, shapes: TensorShapes) -> None:
        """Creates the learned parameters, once, before the optimiser sees the scheme."""

    @property
    def prior(self) -> Float[Tensor, " M"] | None:
        """What learned weights are drawn to; None is uniform."""
        return None

    def set_teacher_accuracy(self, accuracy: Mapping[str, float]) -> None:
        """Hears how good the teachers are, once, before the fit and after a resume.

        Args:
            accuracy: of each teacher on the validation split, in [0, 1].
        """

    def fit_to_held_out(self, logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> None:
        """Sees what the teachers say of the validation split, once, before the fit and after a resume.

        Args:
            logits: of the teachers, in order, for the N images.
            labels: of the images.
        """

    def forward(
        self, student: ModelOutputs, teachers: TeacherOutputs, labels: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B M"]:
        """The weights of the batch."""
        raise NotImplementedError
