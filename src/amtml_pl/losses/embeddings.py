"""Shared part of terms that compare samples by their pooled last maps."""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.term import LossTerm, require_offered, require_teachers
from amtml_pl.types import OfferedFeatures, Step, TensorShapes


class EmbeddingTerm(LossTerm):
    """Term that reads one embedding per network: its last map, averaged over positions.

    Args:
        tap: the student's last map, as a dotted module path.
    """

    needs_teachers = True
    reads_logits = False

    def __init__(self, tap: str) -> None:
        super().__init__()
        self.tap = tap
        self.names: tuple[str, ...] = ()

    def student_taps(self) -> tuple[str, ...]:
        """Return the path of the student's last map."""
        return (self.tap,)

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return the names of the teachers' embeddings."""
        require_offered(type(self).__name__, offered)
        return tuple(f"{teacher}/{taps.hint}@1" for teacher, taps in offered.items())

    def build(self, shapes: TensorShapes) -> None:
        """Store the names of the teachers' embeddings."""
        self.names = self.hints(shapes.offered)

    def embeddings(self, step: Step) -> tuple[Float[Tensor, "B D"], list[Float[Tensor, "B _"]]]:
        """Return the student's embedding and the teachers', in the step's order."""
        teachers, _ = require_teachers(step)
        by_teacher = {name.partition("/")[0]: name for name in self.names}
        hints = [teachers.hints[by_teacher[teacher]].flatten(1) for teacher in teachers.names]
        return step.student.features[self.tap].mean(dim=(2, 3)), hints
