"""AEKD's weights as the published code finds them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.types import Labels, ModelOutputs, TeacherOutputs, TeacherWeights
from amtml_pl.weighting.aekd import logit_gradients
from amtml_pl.weighting.scheme import Weighting, positive_temperature


def support_vector_weights(gram: Float[Tensor, "M M"], tolerance: float) -> Float[Tensor, " M"]:
    """Return a one-class SVM's dual coefficients (M,) on unscaled products; they sum to 1."""
    from sklearn.svm import OneClassSVM  # only here: its import takes a second

    M = len(gram)
    if M == 1:
        return gram.new_ones(1)
    solver = OneClassSVM(kernel="precomputed", nu=min(1.0, 1 / (tolerance * M)), tol=1e-6)
    solver.fit(gram.double().numpy(force=True))
    weights = np.zeros(M)
    weights[solver.support_] = solver.dual_coef_.ravel()
    return torch.from_numpy(weights / weights.sum()).to(gram)


class PublishedAekdWeighting(Weighting):
    """Quadratic program of `amtml_pl.weighting.aekd`, solved by libsvm without scaling.

    Its stopping tolerance is absolute and larger than the products of batch-mean gradients, 1e-8 to 1e-5:
    most steps return the starting point, 0.6, 0.4, 0, ... by position (``docs/methods/aekd.md``).

    Args:
        temperature: T > 0.
        tolerance: the published code's -C.
    """

    weighs_batches = True

    def __init__(self, temperature: float, tolerance: float = 0.6) -> None:
        super().__init__()
        self.temperature = positive_temperature(temperature)
        self.tolerance = tolerance

    def forward(self, student: ModelOutputs, teachers: TeacherOutputs, labels: Labels) -> TeacherWeights:
        """Return the teachers' weights for a batch, (B, M); all rows are the same."""
        with torch.no_grad():
            g = logit_gradients(student.logits, teachers.logits, self.temperature).double().mean(dim=1)
            weights = support_vector_weights(g @ g.T, self.tolerance)
        return weights.to(teachers.logits).expand(len(labels), -1)
