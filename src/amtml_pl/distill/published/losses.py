"""Terms of the published code; `amtml_pl.distill.published` lists what each reproduces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.distill.published.schedule import EPOCHS, first_stage_epochs
from amtml_pl.losses.angle import angle_loss
from amtml_pl.losses.distance import distance_loss
from amtml_pl.losses.hint import hint_loss
from amtml_pl.losses.regression import FeatureRegression
from amtml_pl.losses.regression_confidence import ConfidenceFeatureRegression
from amtml_pl.losses.soft_targets import step_soft_targets
from amtml_pl.losses.term import LossTerm, require_offered, require_teachers
from amtml_pl.losses.triplets import TripletLoss, random_triplets, triplet_terms, votes
from amtml_pl.models.pooling import pool, pool_to_same_size
from amtml_pl.types import OfferedFeatures, Step, TensorShapes
from amtml_pl.weighting.confidence import confidence_weights
from amtml_pl.weighting.scheme import positive_temperature


def element_mean_soft_target_loss(
    student_logits: Float[Tensor, "B K"], soft_targets: Float[Tensor, "B K"], temperature: float
) -> Float[Tensor, ""]:
    """Return the KL divergence averaged over all elements, and doubled.

    ``2 T² / (B K) · sum_bk KL``: what ``KLDivLoss()`` with its old default mean gave, doubled.

    Args:
        student_logits: not softened, with gradients.
        soft_targets: rows sum to 1.
        temperature: T > 0.
    """
    elements = soft_targets.numel()
    log_probabilities = F.log_softmax(student_logits / temperature, dim=1)
    smallest = torch.finfo(soft_targets.dtype).tiny  # at 0 the gradient of q log q is not a number
    kl = F.kl_div(log_probabilities, soft_targets.clamp_min(smallest), reduction="sum")
    return 2 * temperature**2 * kl / elements


class TemperedLoss(LossTerm):
    """Loss term with a temperature T > 0."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)


class PublishedSoftTargetLoss(TemperedLoss):
    """Element-mean KL towards targets that carry gradients; the notebook calls it with T = 5."""

    needs_teachers = is_weighting_objective = True

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        soft_targets = step_soft_targets(step, self.temperature)
        return element_mean_soft_target_loss(step.student.logits, soft_targets, self.temperature)


class PublishedCrossEntropy(TemperedLoss):
    """Cross-entropy of the tempered logits: the notebook overwrites y with ``log_softmax(y / T)``."""

    blends_labels = False

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's mean cross-entropy, a scalar."""
        return F.cross_entropy(step.student.logits / self.temperature, step.labels)


class PublishedRelationLoss(TemperedLoss):
    """Angle plus distance loss of ``log_softmax(z / T)`` against the probabilities q."""

    needs_teachers = vanishes_at_targets = True

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        soft_targets = step_soft_targets(step, self.temperature)
        student = F.log_softmax(step.student.logits / self.temperature, dim=1)
        return angle_loss(student, soft_targets) + distance_loss(student, soft_targets)


class PublishedHintLoss(LossTerm):
    """Hint loss between second stages, through fixed random transforms, one per teacher.

    The transforms are buffers, drawn from U(-0.005, 0.005): in the notebook no optimiser holds them.
    Its maps are of one size; where two differ, the larger is average-pooled to the smaller.

    Args:
        tap: the student's second stage, as a dotted module path.
        epochs: of the run, both stages together; the term is 0 in the second.
    """

    needs_teachers = learns = True
    reads_logits = False

    def __init__(self, tap: str = "layer2", epochs: int = EPOCHS) -> None:
        super().__init__()
        self.tap = tap
        self.first_stage_epochs = first_stage_epochs(epochs)
        self.names: tuple[str, ...] = ()

    def student_taps(self) -> tuple[str, ...]:
        """Return the path of the student's second stage."""
        return (self.tap,)

    def hints(self, offered: Mapping[str, OfferedFeatures]) -> tuple[str, ...]:
        """Return the second stage of every teacher."""
        require_offered("The loss term 'published_hint'", offered, stage=2)
        return tuple(f"{teacher}/{taps.stages[1]}" for teacher, taps in offered.items())

    def build(self, shapes: TensorShapes) -> None:
        """Draw one fixed transform per teacher."""
        self.names = self.hints(shapes.offered)
        student_channels = shapes.student[self.tap][0]
        for position, name in enumerate(self.names):
            transform = torch.empty(shapes.hints[name][0], student_channels).uniform_(-0.005, 0.005)
            self.register_buffer(f"transform_{position}", transform)

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the sum over the teachers, a scalar; 0 in stage 2."""
        teachers, _ = require_teachers(step)
        student = step.student.features[self.tap]
        total = student.new_zeros(())
        if step.epoch >= self.first_stage_epochs:
            return total
        for position, name in enumerate(self.names):
            own, theirs = pool_to_same_size(student, teachers.hints[name])
            total = total + hint_loss(own, theirs, self.get_buffer(f"transform_{position}"))
        return total


class PublishedAdapterL2(LossTerm):
    """``||W||² + ||theta||²`` in stage 1 (coefficient 0.1 in the notebook), 0 afterwards.

    Args:
        epochs: of the run, both stages together.
    """

    needs_learned_weighting = True
    trains_student = False

    def __init__(self, epochs: int = EPOCHS) -> None:
        super().__init__()
        self.first_stage_epochs = first_stage_epochs(epochs)

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the squared norm, a scalar; 0 in stage 2."""
        if step.weighting_norm is None or step.epoch >= self.first_stage_epochs:
            return step.student.logits.new_zeros(())
        return step.weighting_norm


class PublishedFeatureRegression(FeatureRegression):
    """FitNet-MKD of the CA-MKD code: its mean is a new tensor without a gradient."""

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's loss, a scalar without a gradient."""
        return self.errors(step).detach().mean()


class PublishedConfidenceFeatureRegression(ConfidenceFeatureRegression):
    """CA-MKD as published: weights carry gradients to regressors and student, and M divides the mean.

    Each teacher gets the student's map as resized for the teacher before it. The published loop also leaves
    the term out in epoch 1, and skips a last batch that is not full; that is not reproduced.
    """

    def resized(self, feature: Float[Tensor, "B C1 H1 W1"]) -> list[Float[Tensor, "B C1 _ _"]]:
        """Return, per teacher, the map: averaged for a smaller teacher's, else interpolated bilinearly."""
        height, maps = feature.shape[2], []
        for regressor in self.each():
            if height >= regressor.size[0]:
                feature = pool(feature, *regressor.size)
            else:
                feature = F.interpolate(feature, regressor.size, mode="bilinear")
            maps.append(feature)
        return maps

    def weigh(self, regressed: Sequence[Float[Tensor, "B _ _ _"]], step: Step) -> Float[Tensor, "B M"]:
        """Return the confidence weights (B, M), with their gradient."""
        logits = [head(made) for head, made in zip(self.heads, regressed, strict=True)]
        return confidence_weights(torch.stack(logits, dim=1), step.labels)

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar."""
        errors, weights = self.errors_and_weights(step)
        return (weights * errors).mean()


def published_triplet_terms(
    student: Float[Tensor, "B D"],
    last_teacher: Float[Tensor, "B ..."],
    triplets: Int64[Tensor, "P 3"],
    margin: float,
) -> Float[Tensor, " P"]:
    """Return the triplet terms (P,) in the last teacher's order, with the notebook's defect.

    Where it would swap two rows, both become the third sample: swapping views of a tensor overwrites the
    first before it is read. The term is then the margin, without a gradient.
    """
    second_is_closer = votes([last_teacher], triplets)[:, 0]
    overwritten = triplets[:, [0, 2, 2]]
    return triplet_terms(student, torch.where(second_is_closer[:, None], triplets, overwritten), margin)


class PublishedTripletLoss(TripletLoss):
    """Triplet loss ordered by the last teacher alone, without votes.

    The embeddings of the corrected term are compared. The notebook's distance over the width of stage 2's
    maps is not reproduced: maps of 32x16x16 would have to be kept.
    """

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar; 0 for fewer than three samples."""
        student, teachers = self.embeddings(step)
        if len(student) < 3:
            return student.sum() * 0
        triplets = random_triplets(len(student)).to(student.device)
        return published_triplet_terms(student, teachers[-1], triplets, self.margin).mean()
