"""Teacher weights learned from images that no teacher was trained on."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights, TensorShapes
from amtml_pl.weighting.scheme import Weighting

ITERATIONS = 500


def held_out_weights(logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> Float[Tensor, " M"]:
    """Return weights (M,), their sum 1, under which the teachers' mixture best predicts held-out labels.

    They maximise the likelihood of the labels under ``sum_m w_m softmax(z_m)``: a concave problem, solved by
    expectation maximisation. One pseudo-observation per teacher keeps every weight above 0. The images must
    be new to the teachers, whose memory of their training images would be measured otherwise.

    Args:
        logits: of the teachers, not softened.
        labels: in [0, K).
    """
    N, M, _ = logits.shape
    log_likelihood = F.log_softmax(logits.double(), dim=2).gather(2, labels.view(N, 1, 1).expand(N, M, 1))
    weights = log_likelihood.new_full((M,), 1 / M)
    for _ in range(ITERATIONS):
        responsibility = F.softmax(log_likelihood[:, :, 0] + weights.log(), dim=1)
        weights = (responsibility.sum(dim=0) + 1) / (N + M)
    return weights.to(logits.dtype)


class HeldOutWeighting(Weighting):
    """Weights that best predict the validation labels, one per teacher (an extension)."""

    needs_held_out = depends_on_order = True
    shares: Tensor

    def build(self, shapes: TensorShapes) -> None:
        """Register a buffer for the weights (M,), uniform at first."""
        self.register_buffer("shares", torch.full((len(shapes.teachers),), 1 / len(shapes.teachers)))

    def fit_to_held_out(self, logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> None:
        """Fit the weights to validation logits (N, M, K) and labels (N,)."""
        self.shares.copy_(held_out_weights(logits, labels))

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return the learned weights for a batch, (B, M)."""
        return self.shares.to(teachers.logits).expand(len(labels), -1)
