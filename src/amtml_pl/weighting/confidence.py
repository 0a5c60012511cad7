"""CA-MKD's weights: a teacher counts more, the likelier it finds the label."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights
from amtml_pl.weighting.known_classes import knows_label
from amtml_pl.weighting.likelihood import log_likelihoods
from amtml_pl.weighting.scheme import Weighting


def confidence_weights(logits: Float[Tensor, "B M K"], labels: Labels) -> Float[Tensor, "B M"]:
    """Return weights (B, M) that are larger for a smaller cross-entropy with the label.

    ``w_m = (1 - softmax_m(l)_m) / (M - 1)`` with ``l_m = CE(z_m, y)`` at temperature 1.
    After Zhang, Chen and Wang, "Confidence-Aware Multi-Teacher Knowledge Distillation" (arXiv:2201.00007),
    eq. 2 and 3. Rows sum to 1, and no weight exceeds 1 / (M - 1): with three teachers, a half.

    A teacher that does not know the label has weight 0; the softmax and M are those of the teachers that do.
    A label that one teacher alone knows gives it weight 1, one that none knows gives uniform weights.

    Args:
        logits: of the teachers, not softened.
        labels: in [0, K).
    """
    B, M, _ = logits.shape
    if M == 1:
        return logits.new_ones(B, 1)
    knows = knows_label(logits, labels)
    count = knows.sum(dim=1, keepdim=True)
    losses = -log_likelihoods(logits, labels)
    compared = losses.masked_fill(~knows, -torch.inf).where(count > 0, 0.0)
    weights = (1 - F.softmax(compared, dim=1)) / (M - 1)
    # For some teachers only: their own number takes the place of M.
    several = weights * knows * (M - 1) / (count - 1).clamp_min(1)
    return torch.where(
        (count == 0) | (count == M), weights, torch.where(count == 1, knows.to(logits), several)
    )


class ConfidenceWeighting(Weighting):
    """`confidence_weights` of the teachers' own outputs, as constants; the student is not read."""

    reads_labels = True

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return the teachers' weights for a batch, (B, M)."""
        with torch.no_grad():
            return confidence_weights(teachers.logits, labels)
