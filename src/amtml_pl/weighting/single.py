"""All weight on one teacher."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.types import ModelOutputs, TeacherOutputs, TensorShapes
from amtml_pl.weighting.scheme import Weighting

BEST = "best"


class SingleTeacherWeighting(Weighting):
    """All weight on one teacher: with any term this is the single-teacher method.

    The other teachers stay part of the run; in a study their outputs are cached anyway.

    Args:
        teacher: its name, or ``best`` for the one with the highest accuracy on the validation split.
    """

    orders_teachers = True

    def __init__(self, teacher: str = BEST) -> None:
        super().__init__()
        self.teacher = teacher
        self.position: int | None = None

    def build(self, shapes: TensorShapes) -> None:
        """Find the named teacher's position.

        Raises:
            UserError: if no teacher has that name.
        """
        self.names = shapes.teachers
        if self.teacher == BEST:
            return
        if self.teacher not in self.names:
            close = difflib.get_close_matches(self.teacher, self.names, n=1)
            raise UserError(
                f"weighting.teacher={self.teacher}; the teachers are {list(self.names)}.",
                fix=f"weighting.teacher={close[0] if close else BEST}",
            )
        self.position = self.names.index(self.teacher)

    def set_teacher_accuracy(self, accuracy: Mapping[str, float]) -> None:
        """Choose the teacher with the highest accuracy; of equally good ones the first."""
        if self.teacher == BEST:
            self.position = max(range(len(self.names)), key=lambda place: accuracy[self.names[place]])

    def forward(
        self, student: ModelOutputs, teachers: TeacherOutputs, labels: Int64[Tensor, " B"]
    ) -> Float[Tensor, "B M"]:
        """Return one-hot weights for a batch, (B, M).

        Raises:
            RuntimeError: if the best is wanted and `set_teacher_accuracy` has not been called.
        """
        if self.position is None:
            raise RuntimeError("The best teacher is not known before the teachers have been evaluated.")
        B, M, _ = teachers.logits.shape
        return F.one_hot(labels.new_full((B,), self.position), M).to(teachers.logits)
