"""Teacher weights learned from images that no teacher was trained on."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights, TensorShapes
from amtml_pl.weighting.likelihood import log_likelihoods
from amtml_pl.weighting.scheme import Weighting

LARGEST_DECREMENT = 1e-9
STEPS = 1000  # far more than needed: about 7, and 99 for teachers that are sure of wrong labels


def held_out_weights(logits: Float[Tensor, "N M K"], labels: Int64[Tensor, " N"]) -> Float[Tensor, " M"]:
    """Return weights (M,), their sum 1, under which the teachers' mixture best predicts held-out labels.

    They maximise ``sum_n log sum_m w_m softmax(z_nm)_y + sum_m log w_m``: the likelihood of the labels, and
    one pseudo-observation per teacher, which keeps every weight above 0. Labels that no teacher knows are
    left out. The images must be new to the teachers, whose memory of their training images would be measured
    otherwise. In float64 each weight is within 1e-8 of the best one, as a share of it.

    Damped Newton steps (Nesterov and Nemirovskii, 1994) on the self-concordant function
    ``(N + M) sum_m w_m`` minus the above, whose minimum has sum 1. Expectation maximisation, which is
    simpler, needs thousands of steps where teachers are alike.

    Args:
        logits: of the teachers, not softened.
        labels: in [0, K).
    """
    log_likelihood = log_likelihoods(logits.double(), labels)
    M = log_likelihood.shape[1]
    best = log_likelihood.amax(dim=1, keepdim=True)
    likelihood = (log_likelihood - best)[best[:, 0] > -torch.inf].exp()  # no row is 0
    weights = likelihood.new_full((M,), 1 / M)
    for _ in range(STEPS):
        share = likelihood / (likelihood @ weights)[:, None]
        gradient = len(likelihood) + M - share.sum(dim=0) - 1 / weights
        curvature = share.T @ share + weights.pow(-2).diag()
        step = torch.linalg.solve(curvature, gradient)
        decrement = (gradient @ step).clamp_min(0).sqrt()  # bounds the distance to the best weights
        if decrement < LARGEST_DECREMENT:
            break
        weights = weights - step / (1 + decrement)  # stays above 0
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
