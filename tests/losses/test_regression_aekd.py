"""AEKD-F: regression with weights from its gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from amtml_pl.losses.regression_aekd import AekdFeatureRegression
from losses.loops import errors_by_loops, regressed_by_loops, weighted_by_loops
from losses.terms import STAGES, built


@pytest.mark.parametrize("M", [1, 3])
def test_the_regression_of_aekd_equals_loops_with_its_own_weights(M):
    term, step = built(AekdFeatureRegression(list(STAGES), stage=None, grid=None), 4, M, dtype=torch.float64)
    weights = term.own_weights(step).tolist()
    assert term(step).item() == pytest.approx(weighted_by_loops(errors_by_loops(term, step), weights))


@pytest.mark.parametrize("tolerance", [0.1, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(2))
def test_the_weights_of_aekd_f_are_those_of_a_general_solver(tolerance, seed):
    term, step = built(
        AekdFeatureRegression(list(STAGES), stage=None, grid=None, tolerance=tolerance),
        B=2,
        M=4,
        seed=seed,
        dtype=torch.float64,
    )
    weights = term.own_weights(step)
    assert not weights.requires_grad
    assert (weights == weights[0]).all()

    pulls = mean_pulls(term, step)
    lengths = np.linalg.norm(pulls, axis=1)
    directions = pulls / lengths[:, None]
    gram, cap = directions @ directions.T, max(tolerance, 1 / 4)
    found = minimize(
        lambda a: a @ gram @ a / 2, [1 / 4] * 4, jac=lambda a: gram @ a, bounds=[(0, cap)] * 4,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1}, options={"ftol": 1e-14, "maxiter": 500},
    ).x  # fmt: skip
    np.testing.assert_allclose(weights[0], found / lengths / sum(found / lengths), atol=1e-4)


def mean_pulls(term, step):
    """Return the gradient of each teacher's mean error for the student's map, averaged over the batch."""
    feature = step.student.features[term.student_stage]
    pairs = zip(regressed_by_loops(term, step), term.names, strict=True)
    errors = [F.mse_loss(made, step.teachers.hints[name]) for made, name in pairs]
    pulls = [torch.autograd.grad(error, feature, retain_graph=True)[0] for error in errors]
    return np.stack([pull.mean(dim=0).flatten().numpy() for pull in pulls])
