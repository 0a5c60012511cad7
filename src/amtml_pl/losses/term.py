"""Interface between the training step and every loss term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import UserError
from amtml_pl.types import OfferedFeatures, Step, TeacherOutputs, TensorShapes


class LossTerm(nn.Module):
    """Named summand of the total loss: maps a step to an unweighted scalar.

    A base class and not only a protocol, since most terms need no tap and learn nothing: all
    methods besides ``forward`` have a default here. Learned parameters of a term live in the term, so
    that the optimiser trains them and the checkpoint holds them.

    Attributes:
        needs_teachers: whether the term needs teachers.
        needs_learned_weighting: whether the term needs a weighting with learned parameters.
        trains_weighting: whether the term trains a learned weighting.
        blends_labels: whether the term is correct with mixup's blended labels; one without labels is.
        trains_student: whether the student gets a gradient from the term.
        learns: whether the term is meant to learn something of its own, such as projections.
        orders_teachers: whether something of the term belongs to a teacher by its position.
        vanishes_at_targets: whether the term is 0 for a student whose softened output, at the term's
            ``temperature``, is the soft targets.
    """

    needs_teachers: ClassVar[bool] = False
    needs_learned_weighting: ClassVar[bool] = False
    trains_weighting: ClassVar[bool] = False
    blends_labels: ClassVar[bool] = True
    trains_student: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    orders_teachers: ClassVar[bool] = False
    vanishes_at_targets: ClassVar[bool] = False

    def student_taps(self) -> tuple[str, ...]:
        """Return the student's features that the term reads, as dotted module paths."""
        return ()

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return the teachers' features that the term reads, as flat names ``"<teacher>/<tap>"``.

        Args:
            offered: per teacher, in order, the taps that its YAML offers.
        """
        return ()

    def head_names(self) -> tuple[str, ...]:
        """Return the hints whose teachers' classifiers the term runs on its own maps."""
        return ()

    def take_heads(self, heads: Mapping[str, nn.Module]) -> None:
        """Take the teachers' own classifiers, frozen and with their weights.

        Args:
            heads: from each of `head_names` to logits; they stay the teachers' and must not become
                submodules.
        """

    def build(self, shapes: TensorShapes) -> None:
        """Create the learned parameters, once, before the optimiser gets them."""

    def own_weights(self, step: Step) -> Float[Tensor, "B M"] | None:
        """Return teacher weights (B, M) that the term computes itself; None for the step's."""
        return None

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        raise NotImplementedError


def require_teachers(step: Step) -> tuple[TeacherOutputs, Float[Tensor, "B M"]]:
    """Return a step's teacher outputs and weights (B, M).

    Raises:
        UserError: if the step has no teachers.
    """
    if step.teachers is None or step.weights is None:
        raise UserError(
            "A loss term needs teachers, and the run has none.",
            fix="choose some, e.g. teacher=[resnet32,resnet56], or only terms that need none: loss=[ce]",
        )
    return step.teachers, step.weights
