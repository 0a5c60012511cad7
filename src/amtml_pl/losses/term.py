"""Interface between the training step and every loss term."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, Literal, TypeAlias

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from amtml_pl.errors import UserError
from amtml_pl.models.hint_statistics import HintStatistics
from amtml_pl.types import Mixture, OfferedFeatures, Step, TeacherOutputs, TeacherWeights, TensorShapes

ClassWeights: TypeAlias = Literal["balanced"] | Sequence[float]


class LossTerm(nn.Module):
    """Named summand of the total loss: maps a step to an unweighted scalar.

    A subclass overrides ``forward`` and what else it needs. Learned parameters of a term live in the term,
    so that the optimiser trains them and the checkpoint holds them.

    Attributes:
        needs_teachers: True if the term needs teachers; ``forward`` raises a UserError without any.
        reads_logits: False if a term that needs teachers reads their hints alone.
        needs_learned_weighting: True if the term needs a weighting with learned parameters.
        is_weighting_objective: True if a learned weighting can be trained by the term; a regulariser, such as
            ``adapter_l2``, needs one and trains it too, but not without such a term.
        blends_labels: True if the term is correct with mixup's blended labels; one without labels is.
        trains_student: True if the student gets a gradient from the term.
        learns: True if the term trains parameters that belong to it, such as projections.
        depends_on_order: True if parameters or a prior belong to teachers by position. The value then changes
            with the order of the teachers. The doctor checks that other terms keep their value.
        vanishes_at_targets: True if the term should be 0 for a student whose output, softened by
            ``temperature``, is the soft targets; the doctor checks it.
        vanishes_where_teachers_agree: True if the term should be 0 for a student with the logits of teachers
            that all have the same; the doctor checks it for a term that does not vanish at the targets.
        temperature: T > 0 of the softened outputs; 1 for a term that softens none.
        mixture: what the term's soft targets mix; None for a term without any, or with probabilities alone.
        label_smoothing: share of the labels' weight that is spread over all classes, in [0, 1).
        class_weights: of the labels, ``balanced`` or one per class; None for equal ones.
    """

    needs_teachers: ClassVar[bool] = False
    reads_logits: ClassVar[bool] = True
    needs_learned_weighting: ClassVar[bool] = False
    is_weighting_objective: ClassVar[bool] = False
    blends_labels: ClassVar[bool] = True
    trains_student: ClassVar[bool] = True
    learns: ClassVar[bool] = False
    depends_on_order: ClassVar[bool] = False
    vanishes_at_targets: bool = False
    vanishes_where_teachers_agree: ClassVar[bool] = False
    temperature: float = 1.0
    mixture: Mixture | None = None
    label_smoothing: float = 0.0
    class_weights: ClassWeights | None = None

    def student_taps(self) -> tuple[str, ...]:
        """Return the student's features that the term reads, as dotted module paths."""
        return ()

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return the teachers' features that the term reads, as flat names ``"<teacher>/<tap>"``.

        Args:
            offered: per teacher, in order, the taps that its YAML offers.

        Raises:
            UserError: if a teacher does not offer what the term reads.
        """
        return ()

    def head_names(self) -> tuple[str, ...]:
        """Return the hints whose teachers' classifiers the term runs on its own maps."""
        return ()

    def set_teacher_heads(self, heads: Mapping[str, nn.Module]) -> None:
        """Take the teachers' own classifiers, frozen and with their weights.

        Args:
            heads: from each of `head_names` to logits; they must not become submodules of the term.
        """

    def summed_hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return those of `hints` whose statistics over all cached maps the term needs."""
        return ()

    def set_hint_statistics(self, statistics: Mapping[str, HintStatistics]) -> None:
        """Take the statistics of `summed_hints` over all views of the run, after `build`."""

    def set_class_counts(self, counts: Int64[Tensor, " K"]) -> None:
        """Take the number of training images of every class, after `build`."""

    def build(self, shapes: TensorShapes) -> None:
        """Create the learned parameters, once, before the optimiser gets them."""

    def own_weights(self, step: Step) -> TeacherWeights | None:
        """Return teacher weights (B, M) that the term computes itself; None for the step's."""
        return None

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        raise NotImplementedError


def require_teachers(step: Step) -> tuple[TeacherOutputs, TeacherWeights]:
    """Return a step's teacher outputs and weights (B, M); none are a UserError."""
    if step.teachers is None or step.weights is None:
        raise UserError(
            "A loss term needs teachers, but the run has none.",
            fix="select teachers such as 'teacher=[resnet32,resnet56]', or use only 'loss=[ce]'",
        )
    return step.teachers, step.weights


def weighted_over_teachers(step: Step, loss: Callable[[Tensor, Tensor], Tensor]) -> Float[Tensor, ""]:
    """Return ``mean_b sum_m w_bm l_bm`` for a loss of one teacher; the weights are constants.

    Args:
        step: with teachers and weights.
        loss: from the student's logits (B, K) and one teacher's (B, K) to a loss per sample, (B,).
    """
    teachers, weights = require_teachers(step)
    losses = [loss(step.student.logits, own) for own in teachers.logits.unbind(dim=1)]
    return (weights.detach() * torch.stack(losses, dim=1)).sum(dim=1).mean()


def require_offered(reader: str, offered: Mapping[str, OfferedFeatures], stage: int | None = None) -> None:
    """Raise a UserError unless every teacher offers the stage (None: the last map)."""
    if stage is None:
        lacking = [name for name, taps in offered.items() if taps.hint is None]
    else:
        lacking = [name for name, taps in offered.items() if len(taps.stages) < stage]
    if lacking:
        key, wanted = ("hint", "a module") if stage is None else ("stages", f"{stage} or more modules")
        raise UserError(
            f"{reader} needs the key {key} of every teacher (the teachers {lacking} do not name {wanted}).",
            fix=f"set teacher.{lacking[0]}.{key} to {wanted}",
        )


def require_stages(reader: str, stages: Sequence[str]) -> None:
    """Raise a UserError if the student has no stages."""
    if not stages:
        raise UserError(
            f"{reader} needs stages of the student (got student.stages=[], expected one or more modules).",
            fix="set 'student.stages=[MODULE]'",
        )


def require_range(key: str, value: float, lowest: float, highest: float = math.inf) -> None:
    """Raise a UserError unless a number of a term is finite and in a range.

    Args:
        key: as in the configuration, without ``loss.``.
        value: the number.
        lowest: the smallest that is allowed.
        highest: the largest that is allowed.
    """
    if not (lowest <= value <= highest and value < math.inf):
        wanted = f"{lowest:g} or more" if highest == math.inf else f"{lowest:g} to {highest:g}"
        raise UserError(
            f"loss.{key} is out of range (got {value}, expected {wanted}).",
            fix=f"set loss.{key} to a number in this range",
        )


def mixture_of_targets(terms: Iterable[LossTerm], otherwise: Mixture) -> Mixture:
    """Return the mixture of the first term with soft targets; a default without one."""
    return next((term.mixture for term in terms if term.mixture is not None), otherwise)
