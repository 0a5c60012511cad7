"""All weight on one teacher."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import torch.nn.functional as F

from amtml_pl.errors import UserError
from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights, TensorShapes
from amtml_pl.weighting.scheme import Weighting

BEST = "best"


class SingleTeacherWeighting(Weighting):
    """All weight on one teacher: with any term this is the single-teacher method.

    The other teachers stay part of the run; in a study their outputs are cached anyway.

    Args:
        teacher: its name, or ``best`` for the one with the highest accuracy on the validation split; for a
            single teacher, ``best`` needs no accuracy.
    """

    depends_on_order = True

    def __init__(self, teacher: str = BEST) -> None:
        super().__init__()
        self.teacher = teacher
        self.position: int | None = None

    def build(self, shapes: TensorShapes) -> None:
        """Find the named teacher's position; raise a UserError if no teacher has that name."""
        self.names = shapes.teachers
        if self.teacher in self.names:
            self.position = self.names.index(self.teacher)
        elif self.teacher == BEST:
            self.position, self.needs_accuracy = (0, False) if len(self.names) == 1 else (None, True)
        else:
            close = difflib.get_close_matches(self.teacher, self.names, n=1)
            raise UserError(
                f"weighting.teacher is unknown (got {self.teacher}, expected one of {[BEST, *self.names]}).",
                fix=f"weighting.teacher={close[0] if close else BEST}",
            )

    def set_teacher_accuracy(self, accuracy: Mapping[str, float]) -> None:
        """Choose the teacher with the highest accuracy; of equally good ones the first."""
        if self.needs_accuracy:
            self.position = max(range(len(self.names)), key=lambda place: accuracy[self.names[place]])

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return one-hot weights for a batch, (B, M)."""
        if self.position is None:
            raise RuntimeError("SingleTeacherWeighting.forward() needs set_teacher_accuracy() first.")
        B, M, _ = teachers.logits.shape
        return F.one_hot(labels.new_full((B,), self.position), M).to(teachers.logits)
