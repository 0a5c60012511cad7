"""Attention transfer: the student is active where its teachers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm, require_teachers
from amtml_pl.models.hint import ATTENTION, attention_map
from amtml_pl.models.pooling import pool
from amtml_pl.types import OfferedFeatures, Step, TensorShapes


def attention_losses(
    student: Float[Tensor, "B C H1 W1"], teacher: Float[Tensor, "B 1 H2 W2"]
) -> Float[Tensor, " B"]:
    """Return each sample's mean squared distance of two attention maps, (B,).

    ``mean_hw (a(F_s) - a_t)²``, a the `attention_map`, after arXiv:1612.03928.
    The mean is over positions, as in RepDistiller and mdistiller, whose weight of 1000 belongs to it. A
    larger map of the student is average-pooled before its attention is computed; a larger attention map of
    the teacher, of which nothing else is kept, is pooled itself.

    Args:
        student: a map with gradients.
        teacher: the teacher's attention map.
    """
    height, width = (min(student.shape[axis], teacher.shape[axis]) for axis in (2, 3))
    own = attention_map(pool(student, height, width))
    theirs = F.normalize(pool(teacher, height, width).flatten(1), dim=1)
    return (own.flatten(1) - theirs).square().mean(dim=1)


class AttentionLoss(LossTerm):
    """Weighted attention transfer: ``sum_m mean_b w_bm sum_stages`` of `attention_losses`.

    Stages are paired from the last one backwards, so that a teacher may have more of them.

    Args:
        stages: the student's stages, as dotted module paths from first to last.
    """

    needs_teachers = orders_teachers = True

    def __init__(self, stages: Sequence[str]) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.pairs: tuple[tuple[tuple[str, str], ...], ...] = ()

    def student_taps(self) -> tuple[str, ...]:
        """Return the paths of all stages."""
        return self.stages

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return the names of the teachers' attention maps.

        Raises:
            UserError: if a teacher offers no stages.
        """
        return tuple(name for pairs in self.paired(offered) for _, name in pairs)

    def paired(self, offered: Mapping[str, OfferedFeatures]) -> tuple[tuple[tuple[str, str], ...], ...]:
        """Return, per teacher, pairs of a student's stage and a hint.

        Raises:
            UserError: if a teacher offers no stages.
        """
        if without := [teacher for teacher, taps in offered.items() if not taps.stages]:
            raise UserError(
                f"The term 'attention' reads stages, and the teachers {without} offer none.",
                fix=f"teacher.{without[0]}.stages=[...] with module names from first to last",
            )
        return tuple(
            tuple(
                (stage, f"{teacher}/{theirs}@{ATTENTION}")
                for stage, theirs in zip(reversed(self.stages), reversed(taps.stages), strict=False)
            )
            for teacher, taps in offered.items()
        )

    def build(self, shapes: TensorShapes) -> None:
        """Pair the student's stages with the teachers' hints.

        Raises:
            UserError: if every pair is of one position, whose attention is always 1.
        """
        self.pairs = self.paired(shapes.offered)
        maps = [(shapes.student[s], shapes.hints[name]) for pairs in self.pairs for s, name in pairs]
        sizes = [min(own[1] * own[2], theirs[1] * theirs[2]) for own, theirs in maps]
        if max(sizes, default=1) == 1:
            raise UserError(
                "The term 'attention' compares maps of one position only, which are always equal.",
                fix="name larger stages: student.stages=[...] and teacher.NAME.stages=[...]",
            )

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar.

        Raises:
            UserError: if the step has no teachers.
        """
        teachers, weights = require_teachers(step)
        total = step.student.logits.new_zeros(())
        for m, pairs in enumerate(self.pairs):
            losses = [
                attention_losses(step.student.features[stage], teachers.hints[name]) for stage, name in pairs
            ]
            total = total + (weights[:, m].detach() * torch.stack(losses).sum(dim=0)).mean()
        return total
