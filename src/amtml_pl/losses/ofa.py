"""Distillation of logits at every stage, for a student and teachers of unlike architectures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm, require_stages, require_teachers
from amtml_pl.models.cifar_resnet import initialise_convolutions
from amtml_pl.types import Shape, Step, TensorShapes
from amtml_pl.weighting.known_classes import on_known_classes
from amtml_pl.weighting.scheme import positive_temperature


def enhanced_losses(
    student_logits: Float[Tensor, "B K"],
    teacher_logits: Float[Tensor, "B M K"],
    labels: Int64[Tensor, " B"],
    temperature: float,
    eps: float,
) -> Float[Tensor, "B M"]:
    """Return ``-sum_k ((p_mk + 1_y)^eps - 1_y) log p_sk`` per sample and teacher, (B, M).

    p is the softmax at temperature T, and 1_y is 1 for the label, else 0. After Hao et al., "One-for-All"
    (arXiv:2310.19444), eq. 6. The sum is over the classes that the teacher knows, among which the student is
    renormalised.

    Args:
        student_logits: not softened, with gradients.
        teacher_logits: not softened.
        labels: in [0, K).
        temperature: T > 0; the loss is not multiplied by T².
        eps: above 0; with 1 this is the cross-entropy with the teacher's probabilities.
    """
    label = F.one_hot(labels, teacher_logits.shape[2])[:, None].to(teacher_logits)
    target = ((teacher_logits / temperature).softmax(dim=2) + label) ** eps - label
    own = student_logits[:, None].expand_as(teacher_logits)
    own = F.log_softmax(on_known_classes(own, teacher_logits) / temperature, dim=2)
    return -(target * torch.where(teacher_logits > -torch.inf, own, 0.0)).sum(dim=2)


class OneForAllLoss(LossTerm):
    """Weighted `enhanced_losses` of the student, and of a head at each of its stages.

    ``sum_m mean_b w_bm (l_m(z_s) + sum_stages l_m(head(F_s)))``, l being `enhanced_losses`.
    The heads belong to the term: the student does not contain them. All teachers share them. The paper has
    one teacher; the weighted sum over several is this project's.

    Args:
        stages: the student's stages, as dotted module paths from first to last.
        temperature: T > 0.
        eps: exponent of the target, above 0; 1 leaves the teacher's probabilities as they are.

    Raises:
        UserError: if ``stages`` is empty, or ``eps`` is not above 0.
    """

    needs_teachers = learns = True
    blends_labels = False

    def __init__(self, stages: Sequence[str], temperature: float, eps: float = 1.5) -> None:
        super().__init__()
        require_stages("The loss term 'ofa'", stages)
        if not 0 < eps < math.inf:
            raise UserError(
                f"loss.ofa.eps is out of range (got {eps}, expected a number above 0).",
                fix="loss.ofa.eps=1.5",
            )
        self.stages = tuple(stages)
        self.temperature, self.eps = positive_temperature(temperature), eps
        self.heads = nn.ModuleList()

    def student_taps(self) -> tuple[str, ...]:
        """Return the paths of all stages."""
        return self.stages

    def build(self, shapes: TensorShapes) -> None:
        """Create one head per stage."""
        maps = [shapes.student[stage] for stage in self.stages]
        self.heads.extend(StageHead(maps[at:], shapes.classes) for at in range(len(maps)))

    def logits(self, step: Step) -> list[Float[Tensor, "B K"]]:
        """Return the logits of every stage's head, then the student's own."""
        heads = zip(self.stages, cast("Iterable[StageHead]", self.heads), strict=True)
        return [*(head(step.student.features[stage]) for stage, head in heads), step.student.logits]

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        teachers, weights = require_teachers(step)
        losses = [
            enhanced_losses(logits, teachers.logits, step.labels, self.temperature, self.eps)
            for logits in self.logits(step)
        ]
        return (weights.detach() * torch.stack(losses).sum(dim=0)).sum(dim=1).mean()


class StageHead(nn.Sequential):
    """Classifier of a stage's map: a separable convolution per later stage, mean and linear layer.

    Args:
        maps: ``(C, H, W)`` of the stage, then of all later ones, whose channels the convolutions give.
        classes: K.
    """

    def __init__(self, maps: Sequence[Shape], classes: int) -> None:
        widths = [channels for channels, _, _ in maps]
        super().__init__(*(SeparableConvolution(*pair) for pair in pairwise(widths)))
        self.append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten()).append(nn.Linear(widths[-1], classes))


class SeparableConvolution(nn.Module):
    """Two depthwise and pointwise convolutions; the first halves the map.

    The depthwise ones are 3×3; batch norm and a ReLU follow each pair.

    Args:
        source: channels of the map.
        channels: channels of the result.
    """

    def __init__(self, source: int, channels: int) -> None:
        super().__init__()
        first, second = separable(source, source, stride=2), separable(source, channels, stride=1)
        self.convolutions = nn.Sequential(*first, *second)
        initialise_convolutions(self)

    def forward(self, feature: Float[Tensor, "B C1 H1 W1"]) -> Float[Tensor, "B C H W"]:
        """Return a map of half the height and width.

        Raises:
            UserError: for one value per channel in training, which batch norm cannot normalise.
        """
        if self.training and len(feature) == 1 and max(feature.shape[2:]) <= 2:
            raise UserError(
                "The loss term 'ofa' cannot use batch norm on one value (got one image with a map of 1x1).",
                fix="set data.batch_size to 2 or more",
            )
        made: Tensor = self.convolutions(feature)
        return made


def separable(source: int, channels: int, stride: int) -> list[nn.Module]:
    """Return a depthwise and a pointwise convolution, batch norm and ReLU."""
    depthwise = nn.Conv2d(source, source, 3, stride=stride, padding=1, groups=source, bias=False)
    return [depthwise, nn.Conv2d(source, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
