"""Integrated soft targets, and the distillation towards them."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.losses.kd import SoftTargetLoss
from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss
from amtml_pl.losses.soft_targets import integrated_soft_targets, soft_target_loss
from golden_steps import assert_golden
from steps import make_step, with_gaps


@pytest.mark.parametrize(
    ("mixture", "name"), [("probabilities", "prob_mixture"), ("logits", "logit_mixture")]
)
def test_integrated_soft_targets(golden, mixture, name):
    given, expected = golden("integrated_target")
    logits = given["teacher_logits"].double().transpose(0, 1)
    assert_golden(integrated_soft_targets(logits, given["weights"], given["T"], mixture), expected[name])


def test_soft_target_loss_and_its_gradient(golden):
    given, expected = golden("kd_loss")
    logits = given["student_logits"].double().requires_grad_()
    loss = soft_target_loss(logits, given["target"], given["T"])
    assert_golden(loss, expected["kd_T2"])
    assert_golden(loss / given["T"] ** 2, expected["kl_batchmean"])
    (gradient,) = torch.autograd.grad(loss, logits)
    assert_golden(gradient, expected["grad_kd_T2_wrt_student_logits"])
    hinton = given["alpha"] * loss + (1 - given["alpha"]) * F.cross_entropy(logits, given["labels"])
    assert_golden(hinton, expected["hinton"])


SIZES = st.tuples(st.integers(1, 9), st.integers(1, 8), st.integers(2, 12))


@given(SIZES, st.floats(0.5, 20), st.sampled_from(["probabilities", "logits"]))
@settings(max_examples=30)
def test_integrated_soft_targets_are_distributions_and_equal_a_naive_loop(size, T, mixture):
    B, M, K = size
    step = make_step(B, M, K)
    q = integrated_soft_targets(step.teachers.logits, step.weights, T, mixture)
    torch.testing.assert_close(q.sum(dim=1), torch.ones(B))
    for b in range(B):
        z, w = step.teachers.logits[b], step.weights[b]
        if mixture == "probabilities":
            naive = sum(w[m] * (z[m] / T).softmax(0) for m in range(M))
        else:
            naive = (sum(w[m] * z[m] for m in range(M)) / T).softmax(0)
        torch.testing.assert_close(q[b], naive)


@pytest.mark.parametrize("standardize", ["none", "teachers"])
@given(seed=st.integers(0, 2**32 - 1), M=st.integers(1, 4), K=st.integers(3, 7))
@settings(max_examples=20)
def test_teachers_that_do_not_know_all_classes_give_the_gradient_of_the_terms_per_teacher(
    standardize, seed, M, K
):
    """The probability 0 of a class that a teacher never saw is not a target."""
    step = with_gaps(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    logits = step.student.logits.requires_grad_()
    mixed = SoftTargetLoss(3.0, standardize=standardize)(step)
    assert mixed.isfinite()
    if standardize == "none":
        each = PerTeacherSoftTargetLoss(3.0)(step)
        expected, found = (torch.autograd.grad(loss, logits)[0] for loss in (each, mixed))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_teachers_that_know_all_classes_add_nothing():
    step = make_step(dtype=torch.float64)
    targets = integrated_soft_targets(step.teachers.logits, step.weights, 3.0)
    assert SoftTargetLoss(3.0)(step) == soft_target_loss(step.student.logits, targets, 3.0)
