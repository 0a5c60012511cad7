"""Wasserstein distance of feature maps, seen as Gaussians: mean and deviation of every channel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.losses.regression import Activation, FeatureRegression, Regressor
from amtml_pl.losses.term import require_range
from amtml_pl.models.pooling import spans
from amtml_pl.types import Step, TensorShapes

EPS = 1e-5  # added to variances, as in the published code


def wasserstein_losses(
    student: Float[Tensor, "B C _ _"], teacher: Float[Tensor, "B C _ _"], parts: int = 1
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Return squared distances of channel means and of deviations per sample, (B,).

    ``sum_c (mu_s - mu_t)²`` and ``sum_c (sigma_s - sigma_t)²``, each the mean over parts² rectangles.
    Their sum is the squared 2-Wasserstein distance of Gaussians with diagonal covariances. After Lv, Yang and
    Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation"
    (arXiv:2412.08139). A deviation is ``sqrt(variance + 1e-5)``, the variance divided by n - 1. The distance
    of deviations is 0 if a rectangle of the student has one position.

    Args:
        student: a map in the teacher's channels, of any size, with gradients.
        teacher: the teacher's map, of any size; several positions in a rectangle where the student has.
        parts: rectangles along each side of a map, 1 or more.
    """
    pairs = list(zip(rectangles(student, parts), rectangles(teacher, parts), strict=True))
    means = torch.stack([(s.mean(dim=2) - t.mean(dim=2)).square().sum(dim=1) for s, t in pairs])
    if not has_deviations(student.shape, parts):
        return means.mean(dim=0), torch.zeros_like(means[0])
    deviations = torch.stack([(deviation(s) - deviation(t)).square().sum(dim=1) for s, t in pairs])
    return means.mean(dim=0), deviations.mean(dim=0)


def rectangles(maps: Float[Tensor, "B C H W"], parts: int) -> list[Float[Tensor, "B C _"]]:
    """Return the positions of parts² rectangles of a map; its `spans` are their sides."""
    rows, columns = (spans(size, parts) for size in maps.shape[2:])
    return [maps[:, :, row, column].flatten(2) for row in rows for column in columns]


def deviation(positions: Float[Tensor, "B C N"]) -> Float[Tensor, "B C"]:
    """Return the deviation of two positions or more."""
    return (positions.var(dim=2) + EPS).sqrt()


def has_deviations(shape: Sequence[int], parts: int) -> bool:
    """Return True if every rectangle of a map (..., H, W) has several positions."""
    return max(shape[-2:]) > parts


class WassersteinFeatureLoss(FeatureRegression):
    """Weighted Wasserstein distance of the last maps, reduced by a cosine towards the end.

    ``sum_m mean_b w_bm (ratio · means + deviations)``: `wasserstein_losses` of ``r_m(F_s)`` and F_m.
    The regressor r_m is that of `FeatureRegression`, on the student's map in its own size. The paper has one
    teacher; the weighted sum over several is this project's.

    Args:
        stages: the student's stages, as dotted module paths from first to last.
        epochs: length of the run.
        decay: share of the epochs after which the term decreases, in [0, 1]; 150 of 240 in the published
            code.
        ratio: multiplier of the distance of means, at least 0.
        parts: rectangles along each side of a map, each with its own mean and deviation; 1 or more.
        activation: as of `FeatureRegression`.
        hint: the student's last map, as a dotted module path; None takes the last of the stages.
    """

    def __init__(
        self,
        stages: Sequence[str],
        epochs: int,
        decay: float = 0.625,
        ratio: float = 4.0,
        parts: int = 1,
        activation: Activation = "as_teacher",
        hint: str | None = None,
    ) -> None:
        super().__init__(stages, activation=activation, hint=hint)
        require_range("wkd_f.decay", decay, 0, 1)
        require_range("wkd_f.ratio", ratio, 0)
        require_range("wkd_f.parts", parts, 1)
        self.decay_from, self.decay_epochs = decay * epochs, (1 - decay) * epochs
        self.ratio, self.parts = ratio, parts

    def build(self, shapes: TensorShapes) -> None:
        """Create one regressor per teacher.

        Raises:
            UserError: if only the student's map has deviations.
        """
        self.names = self.hints(shapes.offered)
        source = shapes.student[self.student_stage]
        for name in self.names:
            channels, H, W = shapes.hints[name]
            if has_deviations(source, self.parts) and not has_deviations((H, W), self.parts):
                raise UserError(
                    f"The loss term 'wkd_f' cannot compute deviations of the hint {name!r} (got a map of "
                    f"{H}x{W}, expected more than {self.parts}x{self.parts} positions).",
                    fix="cache whole maps: hint_pool=null, or set loss.wkd_f.parts=1 or teacher.NAME.hint",
                )
            self.regressors.append(Regressor(source, (channels, *source[1:])))

    def errors(self, step: Step) -> Float[Tensor, "B M"]:
        """Return the loss of every sample and teacher, (B, M)."""
        losses = []
        for made, target in zip(self.regressed(step), self.targets(step), strict=True):
            means, deviations = wasserstein_losses(made, target, self.parts)
            losses.append(self.ratio * means + deviations)
        return torch.stack(losses, dim=1)

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """Return the batch's unweighted loss, a scalar; the weights are constants."""
        late = max(step.epoch - self.decay_from, 0.0)
        factor = 0.5 * (1 + math.cos(math.pi * late / self.decay_epochs)) if late else 1.0
        return factor * super().forward(step)
