"""Multi-group hint regression: successive student stages imitate the teachers' last features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm, require_teachers
from amtml_pl.models.pooling import pool_to_same_size
from amtml_pl.types import OfferedFeatures, Step, TensorShapes


def hint_loss(
    student: Float[Tensor, "B Cs H W"], teacher: Float[Tensor, "B Ct H W"], projection: Float[Tensor, "Ct Cs"]
) -> Float[Tensor, ""]:
    """Return the mean squared distance of a projected student map from a teacher's.

    ``mean (A·u(F_s) - u(F_t))²`` over all elements, u the L2 normalisation over channels at every pixel.
    After the AMTML code's FitNet module (FitNets: Romero et al., arXiv:1412.6550), where A is meant to
    be learned but is in no optimiser; here it is a parameter of `HintLoss`.

    Args:
        student: a student feature map, with gradients.
        teacher: a teacher feature map of the same height and width.
        projection: A, a 1×1 convolution without bias from student to teacher channels.
    """
    projected = F.conv2d(F.normalize(student, dim=1), projection[:, :, None, None])
    return F.mse_loss(projected, F.normalize(teacher, dim=1))


def stage_per_teacher(teachers: int, stages: int) -> list[int]:
    """Return, per teacher, the position of the student stage that it guides.

    Teachers are spread in order over the stages and end at the last one: three over three stages are
    0, 1, 2 (the paper's Fig. 2); two are 1, 2 (the published Hint notebook); five are 0, 1, 1, 2, 2.
    """
    return [math.ceil((teacher + 1) * stages / teachers) - 1 for teacher in range(teachers)]


class HintLoss(LossTerm):
    """Mean of `hint_loss` over groups, each one teacher's hint and one student stage.

    Where the two maps differ in size, the larger is average-pooled to the smaller first; maps that the
    published code pools to 1×1 and broadcasts are thus compared as means (``docs/methods/amtml_adapter.md``).

    Args:
        stages: the student's stages, as dotted module paths from first to last.
        groups: student stage by flat teacher feature (``{"resnet56/layer3": "layer2"}``); None spreads the
            teachers' offered hints over the stages, see `stage_per_teacher`.
    """

    needs_teachers = learns = True
    reads_logits = False

    def __init__(self, stages: Sequence[str], groups: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.stages = tuple(stages)
        self.groups = None if groups is None else dict(groups)
        self.pairs: tuple[tuple[str, str], ...] = ()
        self.projections = nn.ParameterList()

    def student_taps(self) -> tuple[str, ...]:
        """Return the student's stages of the groups."""
        return self.stages if self.groups is None else tuple(dict.fromkeys(self.groups.values()))

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return the teachers' features of the groups."""
        if self.groups is not None:
            return tuple(self.groups)
        return tuple(f"{teacher}/{taps.hint}" for teacher, taps in offered.items() if taps.hint)

    def build(self, shapes: TensorShapes) -> None:
        """Create one projection per group; raise a UserError without any hint or stage."""
        names = self.hints(shapes.offered)
        if not names or not self.student_taps():
            raise UserError(
                "The loss term 'hint' needs student.stages and teacher.NAME.hint (got an empty key).",
                fix="set both keys to modules, or select a loss without hint, such as 'loss=[ce,kd]'",
            )
        groups = self.groups
        if groups is None:
            stages = stage_per_teacher(len(names), len(self.stages))
            groups = {name: self.stages[stage] for name, stage in zip(names, stages, strict=True)}
        self.pairs = tuple(groups.items())
        for name, stage in self.pairs:
            projection = torch.empty(shapes.hints[name][0], shapes.student[stage][0])
            self.projections.append(nn.Parameter(nn.init.kaiming_uniform_(projection, a=math.sqrt(5))))

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        teachers, _ = require_teachers(step)
        losses = []
        for (name, stage), projection in zip(self.pairs, self.projections, strict=True):
            student, teacher = pool_to_same_size(step.student.features[stage], teachers.hints[name])
            losses.append(hint_loss(student, teacher, projection))
        return torch.stack(losses).mean()
