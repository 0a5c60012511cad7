"""Angle-wise relational loss between the batch's student outputs and its targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.losses.soft_targets import Mixture, positive_temperature, step_soft_targets
from amtml_pl.losses.term import LossTerm
from amtml_pl.types import Step


def angle_loss(student: Float[Tensor, "B D"], target: Float[Tensor, "B E"]) -> Float[Tensor, ""]:
    """RKD-A: smooth-L1 distance of the cosines of all angles that triples of samples form.

    ``psi(i, j, k) = <n_ij, n_ik>`` with ``n_ij = (x_j - x_i) / ||x_j - x_i||``; the loss is the mean over
    all B³ triples, degenerate ones included (they are 0 on both sides), after Park, Kim, Lu and Cho,
    "Relational Knowledge Distillation" (arXiv:1904.05068), eq. 8.
    Where two samples coincide, the angle and its gradient are zero instead of divided by 1e-12.

    Args:
        student: one row per sample, with gradients.
        target: one row per sample, no gradient reaches it; D and E may differ.

    Returns:
        A scalar ≥ 0, zero where both sides form the same angles.
    """
    return F.smooth_l1_loss(angles(student), angles(target.detach()))


def angles(points: Float[Tensor, "B D"]) -> Float[Tensor, "B B B"]:
    """Cosine of the angle at vertex i between the directions to j and k, for all (i, j, k)."""
    difference = points[None, :, :] - points[:, None, :]
    squared_length = difference.square().sum(dim=2, keepdim=True)
    apart = squared_length > 1e-24
    length = torch.where(apart, squared_length, 1.0).sqrt()
    direction = torch.where(apart, difference / length, 0.0)
    return direction @ direction.transpose(1, 2)


class AngleLoss(LossTerm):
    """Angles between the student's softened outputs follow those between the integrated soft targets.

    Both sides are probabilities at the same temperature, so that a perfect student has zero loss (the
    released code compares log-probabilities or logits with probabilities; see `amtml_pl.released`).

    Args:
        temperature: T > 0.
        mixture: what the targets mix, see `amtml_pl.losses.soft_targets.integrated_soft_targets`.

    Raises:
        UserError: if the temperature is not positive.
    """

    needs_teachers = True

    def __init__(self, temperature: float, mixture: Mixture = "probabilities") -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)
        self.mixture: Mixture = mixture

    def forward(self, step: Step) -> Float[Tensor, ""]:
        """The loss of the batch, unweighted."""
        targets = step_soft_targets(step, self.temperature, self.mixture).detach()
        return angle_loss(F.softmax(step.student.logits / self.temperature, dim=1), targets)
