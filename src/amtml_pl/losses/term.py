"""What the training step asks of every loss term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import UserError
from amtml_pl.types import OfferedFeatures, Step, TeacherOutputs, TensorShapes


class LossTerm(nn.Module):
    """One named summand of the total loss: maps a step to an unweighted scalar.

    A base class and not only a protocol, since most terms need no tap and learn nothing: all
    methods besides ``forward`` have an answer here. Learned parameters of a term live in the term, so
    that the optimiser trains them and the checkpoint holds them.

    Attributes:
        needs_teachers: whether the term is nothing without teachers.
        needs_learned_weighting: whether the term is nothing for a weighting that learns nothing.
        trains_weighting: whether a learned weighting gets from the term what it is to learn.
        blends_labels: whether the term does right by mixup's blended labels, if only by reading none.
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
        """The student's features that the term reads, as dotted module paths."""
        return ()

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """The teachers' features that the term reads, as flat names ``"<teacher>/<tap>"``.

        Args:
            offered: per teacher, in order, the taps that its YAML offers.
        """
        return ()

    def head_names(self) -> tuple[str, ...]:
        """The hints in whose place the term puts its own maps, to run the teachers' classifiers on them."""
        return ()

    def take_heads(self, heads: Mapping[str, nn.Module]) -> None:
        """Receives the teachers' own classifiers, frozen, once they have their weights.

        Args:
            heads: from each of `head_names` to logits; they stay the teachers' and must not become
                submodules.
        """

    def build(self, shapes: TensorShapes) -> None:
        """Creates the learned parameters, once, before the optimiser sees the term."""

    def own_weights(self, step: Step) -> Float[Tensor, "B M"] | None:
        """The weights of the teachers that the term computes for itself; None where it takes the step's."""
        return None

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """The unweighted value of the term for one batch."""
        raise NotImplementedError


def require_teachers(step: Step) -> tuple[TeacherOutputs, Float[Tensor, "B M"]]:
    """The teachers' outputs of a step, and their weights.

    Raises:
        UserError: if the step has no teachers.
    """
    if step.teachers is None or step.weights is None:
        raise UserError(
            "A loss term needs teachers, and the run has none.",
            fix="choose some, e.g. teacher=[resnet32,resnet56], or only terms that need none: loss=[ce]",
        )
    return step.teachers, step.weights
