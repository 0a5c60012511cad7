"""Attention transfer: the student is active where its teachers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm, require_offered, require_stages, require_teachers
from amtml_pl.models.hint import ATTENTION, attention_map
from amtml_pl.models.pooling import pool_to_same_size
from amtml_pl.types import OfferedFeatures, Step, TensorShapes


def attention_losses(
    student: Float[Tensor, "B C H1 W1"], teacher: Float[Tensor, "B 1 H2 W2"]
) -> Float[Tensor, " B"]:
    """Return each sample's mean squared distance of two attention maps, (B,).

    ``mean_hw (a(F_s) - a_t)²``, a the `attention_map`, after arXiv:1612.03928.
    The mean is over positions, as in RepDistiller and mdistiller, whose weight of 1000 belongs to it. The
    larger of the two inputs is average-pooled first: the student's map before its attention is computed,
    the teacher's attention itself, since its map is not kept.

    Args:
        student: a feature map, with gradients.
        teacher: the teacher's attention map, of any height and width.
    """
    student, teacher = pool_to_same_size(student, teacher)
    own, theirs = attention_map(student).flatten(1), F.normalize(teacher.flatten(1), dim=1)
    return (own - theirs).square().mean(dim=1)


class AttentionLoss(LossTerm):
    """Weighted attention transfer: ``sum_m mean_b w_bm sum_stages`` of `attention_losses`.

    Stages are paired from the last one backwards, so that a teacher may have more of them. The paper by
    Zagoruyko and Komodakis (arXiv:1612.03928) has one teacher.

    Args:
        stages: the student's stages, as dotted module paths from first to last.
    """

    needs_teachers = depends_on_order = True
    reads_logits = False

    def __init__(self, stages: Sequence[str]) -> None:
        super().__init__()
        require_stages("The loss term 'attention'", stages)
        self.stages = tuple(stages)
        self.pairs: list[list[tuple[str, str]]] = []

    def student_taps(self) -> tuple[str, ...]:
        """Return the paths of all stages."""
        return self.stages

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return the names of the teachers' attention maps."""
        return tuple(name for pairs in self.stage_pairs(offered) for _, name in pairs)

    def stage_pairs(self, offered: Mapping[str, OfferedFeatures]) -> list[list[tuple[str, str]]]:
        """Return, per teacher, pairs of a student's stage and a hint."""
        require_offered("The loss term 'attention'", offered, stage=1)
        return [
            [
                (own, f"{teacher}/{theirs}@{ATTENTION}")
                for own, theirs in zip(reversed(self.stages), reversed(taps.stages), strict=False)
            ]
            for teacher, taps in offered.items()
        ]

    def build(self, shapes: TensorShapes) -> None:
        """Pair the student's stages with the teachers' hints.

        Raises:
            UserError: if every pair is of one position, whose attention is always 1.
        """
        self.pairs = self.stage_pairs(shapes.offered)
        maps = [(shapes.student[s], shapes.hints[name]) for pairs in self.pairs for s, name in pairs]
        if all(min(own[1] * own[2], theirs[1] * theirs[2]) == 1 for own, theirs in maps):
            raise UserError(
                "The loss term 'attention' cannot use feature maps of size 1x1 (expected larger maps).",
                fix="use modules with larger maps: 'student.stages=[MODULE]' 'teacher.NAME.stages=[MODULE]'",
            )

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        teachers, weights = require_teachers(step)
        total = step.student.logits.new_zeros(())
        for m, pairs in enumerate(self.pairs):
            losses = [attention_losses(step.student.features[s], teachers.hints[name]) for s, name in pairs]
            total = total + (weights[:, m].detach() * torch.stack(losses).sum(dim=0)).mean()
        return total
