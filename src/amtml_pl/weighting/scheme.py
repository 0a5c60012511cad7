"""Interface between the training step and every weighting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float, Int64
from torch import Tensor, nn

from amtml_pl.errors import UserError
from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights, TensorShapes


class Weighting(nn.Module):
    """Map from a batch to one weight per sample and teacher; rows sum to 1.

    A subclass overrides ``forward`` and what else it needs.

    Attributes:
        reads_labels: True if the weights depend on the labels, which mixup would blend.
        reads_logits: False if the weights depend neither on the teachers' logits nor on their accuracy.
        weighs_batches: True if a sample's weights depend on the rest of its batch, or on chance.
        needs_held_out: True if `fit_to_held_out` must be called before the fit.
        without_held_out: the override of a run that has no validation split.
        needs_accuracy: True if `set_teacher_accuracy` must get every teacher's accuracy; known after `build`.
        lr: learning rate of the scheme's parameters; None takes the student's.
        depends_on_order: True if the columns of the weights do not follow a permutation of the teachers,
            e.g. since parameters belong to teachers by position.
    """

    reads_labels: ClassVar[bool] = False
    reads_logits: ClassVar[bool] = True
    weighs_batches: ClassVar[bool] = False
    needs_held_out: bool = False
    without_held_out: ClassVar[str] = "weighting=uniform"
    needs_accuracy: bool = False
    lr: float | None = None
    depends_on_order: bool = False

    def student_taps(self) -> tuple[str, ...]:
        """Return the student's features that the scheme reads, as dotted module paths."""
        return ()

    def build(self, shapes: TensorShapes) -> None:
        """Create the learned parameters, once, before the optimiser gets them."""

    def prior(self, teachers: TeacherOutputs) -> TeacherWeights | None:
        """Return weights (B, M) that learned weights are drawn to; None means uniform."""
        return None

    @property
    def learns(self) -> bool:
        """True if the scheme has learned parameters."""
        return any(True for _ in self.parameters())

    def set_teacher_accuracy(self, accuracy: Mapping[str, float]) -> None:
        """Take the teachers' validation accuracy by name, before a fit or resume; without it, none."""

    def fit_to_held_out(self, logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> None:
        """Fit to the teachers' validation outputs, before a fit or resume."""

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return the teachers' weights for a batch, (B, M)."""
        raise NotImplementedError


def positive_temperature(temperature: float) -> float:
    """Return a temperature as a float, which must be finite and above 0."""
    if not 0 < temperature < math.inf:
        raise UserError(
            f"temperature is not valid (got {temperature}, expected a number above 0).", fix="temperature=4"
        )
    return float(temperature)
