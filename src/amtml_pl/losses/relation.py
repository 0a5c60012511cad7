"""Relational distillation: distances and angles between samples are those of the teachers' embeddings."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.losses.angle import angle_loss
from amtml_pl.losses.distance import distance_loss
from amtml_pl.losses.term import LossTerm
from amtml_pl.types import OfferedFeatures, Step, TensorShapes


def embedding_hints(offered: Mapping[str, OfferedFeatures], term: str) -> tuple[str, ...]:
    """Every teacher's last map, averaged over its positions.

    Raises:
        UserError: if a teacher offers no last map.
    """
    if without := [teacher for teacher, taps in offered.items() if taps.hint is None]:
        raise UserError(
            f"The term {term!r} reads the last map, and the teachers {without} offer none.",
            fix=f"teacher.{without[0]}.hint=MODULE",
        )
    return tuple(f"{teacher}/{taps.hint}@1" for teacher, taps in offered.items())


class RelationLoss(LossTerm):
    """``sum_m mean_b(w_bm) (distance · RKD-D + angle · RKD-A)`` between pooled last maps.

    After Park et al., "Relational Knowledge Distillation" (arXiv:1904.05068); see
    `amtml_pl.losses.distance` and `amtml_pl.losses.angle` for the two parts.

    Args:
        tap: the student's last map, as a dotted module path.
        distance: multiplier of the distances' part.
        angle: multiplier of the angles' part.
    """

    needs_teachers = orders_teachers = True

    def __init__(self, tap: str, distance: float = 25.0, angle: float = 50.0) -> None:
        super().__init__()
        self.tap = tap
        self.distance, self.angle = distance, angle
        self.names: tuple[str, ...] = ()

    def student_taps(self) -> tuple[str, ...]:
        """The last map."""
        return (self.tap,)

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """The teachers' embeddings.

        Raises:
            UserError: if a teacher offers no last map.
        """
        return embedding_hints(offered, "rkd")

    def build(self, shapes: TensorShapes) -> None:
        """Takes the order of the teachers."""
        self.names = self.hints(shapes.offered)

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """The loss of the batch, unweighted.

        Raises:
            UserError: if the step has no teachers.
        """
        if step.teachers is None or step.weights is None:
            raise UserError("The term 'rkd' needs teachers.", fix="teacher=[resnet32] weighting=single")
        student = step.student.features[self.tap].mean(dim=(2, 3))
        total = student.new_zeros(())
        for share, name in zip(step.weights.detach().mean(dim=0), self.names, strict=True):
            if share == 0:
                continue
            teacher = step.teachers.hints[name].flatten(1)
            parts = self.distance * distance_loss(student, teacher) + self.angle * angle_loss(
                student, teacher
            )
            total = total + share * parts
        return total
