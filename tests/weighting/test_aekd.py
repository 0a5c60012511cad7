"""AEKD's weights, and their quadratic program."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss
from amtml_pl.weighting.aekd import AekdWeighting, gradient_weights, logit_gradients
from amtml_pl.weighting.minimum_norm import minimum_norm_weights
from golden_steps import assert_golden, logit_step, teachers_of, weighted


def test_the_quadratic_program_of_aekd(golden):
    given, expected = golden("aekd")
    toy = expected["toy_gram"].double()
    assert_golden(minimum_norm_weights(toy, given["C"]), expected["toy_alpha_C06"])
    assert_golden(minimum_norm_weights(toy, 1.0), expected["toy_alpha_C1"])
    gradients = logit_gradients(given["student_logits"].double(), teachers_of(given), given["T"])
    means = gradients.mean(dim=1)
    assert_golden(means, expected["batch_mean_grad"])
    assert_golden(means @ means.T, expected["gram"])


@pytest.mark.parametrize(
    ("options", "name"),
    [({}, "alpha"), ({"normalize": True}, "alpha_normed"), ({"per_sample": True}, "alpha_full")],
    ids=["plain", "normalize", "per_sample"],
)
def test_the_weights_and_the_loss_of_aekd(golden, options, name):
    given, expected = golden("aekd")
    T, step = given["T"], logit_step(given["student_logits"], teachers_of(given))
    step = weighted(step, AekdWeighting(T, tolerance=given["C"], **options))
    assert_golden(step.weights, expected[name].expand(4, 3))
    loss = PerTeacherSoftTargetLoss(T)(step)
    assert_golden(loss, expected[name] @ expected["loss_per_teacher"])
    if name == "alpha":
        assert_golden(loss, expected["loss"])


@given(M=st.integers(1, 6), seed=st.integers(0, 200), cap=st.sampled_from([0.3, 0.6, 1.0]))
@settings(max_examples=40)
def test_the_quadratic_program_is_solved_as_a_general_solver_solves_it(M, seed, cap):
    g = torch.randn(M, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    weights = minimum_norm_weights(g @ g.T, cap)
    gram, cap = (g @ g.T).numpy(), max(cap, 1 / M)
    found = minimize(
        lambda a: a @ gram @ a, [1 / M] * M, jac=lambda a: 2 * gram @ a, bounds=[(0, cap)] * M,
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1}, options={"ftol": 1e-12, "maxiter": 500},
    )  # fmt: skip
    assert float(weights @ (g @ g.T) @ weights) <= found.fun + 1e-7
    assert float(weights.sum()) == pytest.approx(1)
    assert 0 <= float(weights.min()) <= float(weights.max()) <= cap + 1e-9


def test_the_size_of_the_gradients_plays_no_part():
    g = torch.randn(3, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    small, large = (gradient_weights(size * g, 0.6, normalize=False) for size in (1e-4, 1.0))
    torch.testing.assert_close(small, large)
