"""Facts of a run for its figures, and figures of an epoch and the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.soft_targets import Mixture
from amtml_pl.results.evaluation.quality import Reliability
from amtml_pl.runs.record import RunRecord
from amtml_pl.training.dashboard.answers import (
    PredictionBuffer,
    confusion_matrix,
    draw_confusion,
    draw_reliability,
)
from amtml_pl.training.dashboard.disagreement import Examples, draw_examples
from amtml_pl.training.dashboard.logger import TensorBoard
from amtml_pl.training.dashboard.weights_by_class import draw_weights_by_class


@dataclass(frozen=True)
class RunContext:
    """Facts of a run that is about to be fitted.

    Attributes:
        lr: the student's learning rate at the beginning; None where its optimizer has none.
        held_out: ``(N, M, K)``, the teachers' logits for the validation images; None where they are not
            computed yet.
        gradient_share: what the doctor has measured of each term; empty where it was not run.
    """

    about: RunRecord
    classes: tuple[str, ...]
    image_size: int
    temperature: float
    mixture: Mixture
    lr: float | None
    accuracy: Mapping[str, Mapping[str, float]]
    held_out: Float[Tensor, "N M K"] | None = None
    gradient_share: Mapping[str, float] = field(default_factory=dict)

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers in order."""
        return tuple(self.about.teachers)


def write_answers(
    logger: TensorBoard, subject: RunContext, answers: PredictionBuffer, whose: str, epoch: int
) -> None:
    """Write the confusion matrix and the reliability diagram of a pass."""
    if not answers.logits:
        return
    _, labels, logits = answers.whole()
    counts = confusion_matrix(logits.argmax(dim=1), labels, len(subject.classes))
    title = f"{whose}: {len(labels)} images"
    logger.figure(f"{whose}/confusion", draw_confusion(counts, subject.classes, title), epoch)
    reliability = Reliability.of(logits.double().softmax(dim=1), labels)
    logger.figure(f"{whose}/reliability", draw_reliability(reliability, title), epoch)


def write_teaching(
    logger: TensorBoard,
    subject: RunContext,
    means: Float[Tensor, "K M"] | None,
    examples: Examples | None,
    epoch: int,
) -> None:
    """Write the heat map of weights by class, and the disputed images."""
    if means is not None:
        heat_map = draw_weights_by_class(means, subject.classes, subject.teachers)
        logger.figure("ensemble/weights_by_class", heat_map, epoch)
    if examples is not None:
        drawn = draw_examples(
            examples, subject.teachers, subject.classes, subject.temperature, subject.mixture
        )
        logger.figure("ensemble/disputed_images", drawn, epoch)
