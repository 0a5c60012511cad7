"""EBKD's weights: a teacher counts more, the smaller the entropy of its output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights
from amtml_pl.weighting.scheme import Weighting


def entropy_weights(logits: Float[Tensor, "B M K"]) -> Float[Tensor, "B M"]:
    """Return weights (B, M) that are larger for an output of smaller entropy.

    ``w_m = (1 - H_m / sum_j H_j) / (M - 1)``, H the entropy of the output at temperature 1.
    As the CA-MKD code computes the entropy-based baseline (EBKD), whose own paper was not seen; there the
    rows sum to M - 1. Here they sum to 1, and are uniform where every entropy is 0.

    A teacher that knows K_m of the K classes has its entropy among these, times ln K / ln K_m: an output
    without any preference then has the same entropy for all teachers.

    Args:
        logits: of the teachers, not softened.
    """
    B, M, K = logits.shape
    if M == 1:
        return logits.new_ones(B, 1)
    log_p = F.log_softmax(logits, dim=2)
    p = log_p.exp()
    entropy = torch.where(p > 0, -p * log_p, 0.0).sum(dim=2)
    known = (logits > -torch.inf).sum(dim=2).to(entropy)
    entropy = entropy * (torch.full_like(known, K).log() / known.log())  # times 1 where all are known
    total = entropy.sum(dim=1, keepdim=True)
    share = torch.where(total > 0, entropy / total.clamp_min(torch.finfo(total.dtype).tiny), 1 / M)
    return (1 - share) / (M - 1)


class EntropyWeighting(Weighting):
    """`entropy_weights` of the teachers' outputs, as constants; the student is not read."""

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return the teachers' weights for a batch, (B, M)."""
        with torch.no_grad():
            return entropy_weights(teachers.logits)
