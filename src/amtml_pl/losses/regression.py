"""Feature regression: a learned regressor per teacher makes the teacher's map from the student's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm, require_offered, require_stages, require_teachers
from amtml_pl.models.pooling import pool
from amtml_pl.types import OfferedFeatures, Shape, Step, TeacherWeights, TensorShapes

Activation: TypeAlias = Literal["as_teacher", "relu"]


def regression_errors(
    regressed: Sequence[Float[Tensor, "B ..."]], targets: Sequence[Float[Tensor, "B ..."]]
) -> Float[Tensor, "B M"]:
    """Return the mean squared error per sample and teacher, (B, M).

    ``mean_chw (r_m(F_s) - F_m)²`` for the regressor r_m of teacher m.
    After FitNets (Romero et al., arXiv:1412.6550), eq. 3, with the mean over a map's elements in place of
    half their sum.

    Args:
        regressed: per teacher the student's map in that teacher's shape, with gradients.
        targets: per teacher its map.
    """
    pairs = zip(regressed, targets, strict=True)
    return torch.stack([(made - target).square().flatten(1).mean(dim=1) for made, target in pairs], dim=1)


class FeatureRegression(LossTerm):
    """Weighted mean of regression errors; with uniform weights this is FitNet-MKD.

    ``sum_m mean_b w_bm · mean_chw (r_m(F_s) - F_m)²``.
    Each r_m is a 1×1 convolution and batch norm, and a ReLU where the teacher's map has one. The CA-MKD code
    always has the ReLU. It cannot give the negative values of stages that are not activated, such as those of
    a wide residual network. Where the sizes differ, the student's map is first averaged, or repeated, to
    the teacher's size; the code's strided and transposed convolutions, and its skipping of epoch 1, are
    left out.

    Args:
        stages: the student's stages, as dotted module paths from first to last; unused with ``hint`` alone.
        stage: which stage of the student imitates which of every teacher's offered ones, from 1; None takes
            the last maps of both: ``hint``, and the teachers' offered hints.
        grid: side of the grid that the teachers' maps are pooled to before they are kept; None keeps them
            as their YAML says.
        activation: what a regressor ends in: ``as_teacher`` a ReLU where the teacher's maps of the batch are
            nowhere negative, ``relu`` always one, as published.
        hint: the student's last map, as a dotted module path; None takes the last of the stages.
    """

    needs_teachers = learns = depends_on_order = True
    reads_logits = False
    heads: tuple[nn.Module, ...] = ()  # in a tuple, which torch does not look into

    def __init__(
        self,
        stages: Sequence[str],
        stage: int | None = None,
        grid: int | None = None,
        activation: Activation = "as_teacher",
        hint: str | None = None,
    ) -> None:
        super().__init__()
        if stage is not None or hint is None:
            require_stages("A regression loss term", stages)
        if stage is not None and not 1 <= stage <= len(stages):
            raise UserError(
                f"A regression loss term has a wrong stage (got {stage}, expected null or 1 to "
                f"{len(stages)}, the length of student.stages).",
                fix="set loss.regression.stage=null, or add modules to student.stages",
            )
        self.student_stage = (hint or stages[-1]) if stage is None else stages[stage - 1]
        self.stage = stage
        self.grid = grid
        self.activation: Activation = activation
        self.names: tuple[str, ...] = ()
        self.regressors = nn.ModuleList()

    def student_taps(self) -> tuple[str, ...]:
        """Return the path of the one stage that is read."""
        return (self.student_stage,)

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return the name of every teacher's map."""
        require_offered("A regression loss term", offered, self.stage)
        grid = "" if self.grid is None else f"@{self.grid}"
        return tuple(
            f"{teacher}/{taps.hint if self.stage is None else taps.stages[self.stage - 1]}{grid}"
            for teacher, taps in offered.items()
        )

    def build(self, shapes: TensorShapes) -> None:
        """Create one regressor per teacher."""
        self.names = self.hints(shapes.offered)
        source = shapes.student[self.student_stage]
        self.regressors.extend(Regressor(source, shapes.hints[name]) for name in self.names)

    def set_teacher_heads(self, heads: Mapping[str, nn.Module]) -> None:
        """Keep the classifiers of `head_names`."""
        self.heads = tuple(heads[name] for name in self.head_names())

    def each(self) -> Iterable[Regressor]:
        """Return the regressors in the order of the teachers."""
        return cast("Iterable[Regressor]", self.regressors)

    def regressed(self, step: Step) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Return, per teacher, the student's map in that teacher's shape."""
        resized = self.resized(step.student.features[self.student_stage])
        made = [regressor(own) for regressor, own in zip(self.each(), resized, strict=True)]
        if self.activation == "relu":
            return tuple(F.relu(each) for each in made)
        return tuple(relu_like(each, target) for each, target in zip(made, self.targets(step), strict=True))

    def resized(self, feature: Float[Tensor, "B C1 H1 W1"]) -> list[Float[Tensor, "B C1 _ _"]]:
        """Return, per teacher, the student's map averaged, or repeated, to the teacher's size."""
        return [pool(feature, *regressor.size) for regressor in self.each()]

    def targets(self, step: Step) -> tuple[Float[Tensor, "B _ _ _"], ...]:
        """Return the teachers' maps in order."""
        teachers, _ = require_teachers(step)
        return tuple(teachers.hints[name] for name in self.names)

    def errors(self, step: Step) -> Float[Tensor, "B M"]:
        """Return the error of every sample and teacher, (B, M)."""
        return regression_errors(self.regressed(step), self.targets(step))

    def errors_and_weights(self, step: Step) -> tuple[Float[Tensor, "B M"], TeacherWeights]:
        """Return the errors and the weights of their mean, each (B, M)."""
        _, weights = require_teachers(step)
        return self.errors(step), weights if step.feature_weights is None else step.feature_weights

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar; the weights are constants."""
        errors, weights = self.errors_and_weights(step)
        return (weights.detach() * errors).sum(dim=1).mean()


class Regressor(nn.Module):
    """1×1 convolution and batch norm on a map of the teacher's size.

    Args:
        source: ``(C, H, W)`` of the student's map.
        wanted: ``(C, H, W)`` of the teacher's.
    """

    def __init__(self, source: Shape, wanted: Shape) -> None:
        super().__init__()
        self.size = wanted[1:]
        self.project = nn.Conv2d(source[0], wanted[0], kernel_size=1)
        self.norm = nn.BatchNorm2d(wanted[0])

    def forward(self, resized: Float[Tensor, "B C1 H W"]) -> Float[Tensor, "B C H W"]:
        """Return the student's map in the teacher's shape.

        Raises:
            UserError: for one value per channel in training, which batch norm cannot normalise.
        """
        if self.training and len(resized) * self.size[0] * self.size[1] == 1:
            raise UserError(
                "A regression loss term cannot use batch norm on one value (got one image with a 1x1 map).",
                fix="set data.batch_size to 2 or more, or cache larger maps: hint_pool=null",
            )
        made: Tensor = self.norm(self.project(resized))
        return made


def relu_like(made: Float[Tensor, "B C H W"], like: Float[Tensor, "B C _ _"]) -> Float[Tensor, "B C H W"]:
    """Apply a ReLU to a map where the other map is nowhere negative."""
    # Without a branch, which would have to wait for the device.
    lowest = torch.where(like.amin() < 0, -torch.inf, 0.0).to(made)
    return torch.where(made <= lowest, lowest, made)
