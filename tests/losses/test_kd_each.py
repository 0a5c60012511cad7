"""Distillation towards every teacher by itself."""

from itertools import product

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss, soft_target_losses
from amtml_pl.weighting.confidence import ConfidenceWeighting
from amtml_pl.weighting.entropy import EntropyWeighting
from golden_steps import assert_golden, logit_step, teachers_of, weighted
from steps import make_step, with_gaps


def test_entropy_weights_and_the_two_scales_of_their_loss(golden):
    given, expected = golden("ebkd")
    T, step = given["T"], logit_step(given["student_logits"], teachers_of(given))
    losses = soft_target_losses(step.student.logits, step.teachers.logits, T)
    assert_golden(losses.T, expected["kd_per"])
    assert_golden(PerTeacherSoftTargetLoss(T)(step), expected["aver_loss"])
    step = weighted(step, EntropyWeighting())
    assert_golden(step.weights.T, expected["weights_norm"])
    assert_golden(PerTeacherSoftTargetLoss(T)(step), expected["loss_norm"])
    assert_golden(PerTeacherSoftTargetLoss(T, "ebkd_published")(step), expected["loss_ref"])


def test_confidence_weights_and_the_two_scales_of_their_loss(golden):
    given, expected = golden("camkd")
    step = logit_step(given["student_logits"], teachers_of(given), labels=given["labels"])
    step = weighted(step, ConfidenceWeighting())
    assert_golden(step.weights.T, expected["weights"])
    assert_golden(PerTeacherSoftTargetLoss(given["T"])(step), expected["kd_loss_paper"])
    assert_golden(PerTeacherSoftTargetLoss(given["T"], "camkd_published")(step), expected["kd_loss_ref"])


@given(seed=st.integers(0, 50), M=st.integers(1, 4), K=st.integers(2, 7))
@settings(max_examples=12)
def test_the_loss_equals_a_loop_over_samples_and_teachers(seed, M, K):
    step = make_step(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    z, w, T, naive = step.student.logits, step.weights, 3.0, 0.0
    for b, m in product(range(4), range(M)):
        p, q = (step.teachers.logits[b, m] / T).softmax(0), (z[b] / T).softmax(0)
        naive = naive + w[b, m] * T**2 * (p * (p / q).log()).sum() / 4
    torch.testing.assert_close(PerTeacherSoftTargetLoss(T)(step), naive)


@given(seed=st.integers(0, 200), M=st.integers(1, 4), K=st.integers(3, 7))
@settings(max_examples=20)
def test_a_teacher_is_compared_among_the_classes_that_it_knows(seed, M, K):
    step = with_gaps(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    z, w, T, naive = step.student.logits, step.weights, 3.0, 0.0
    for b, m in product(range(4), range(M)):
        known = [k for k in range(K) if step.teachers.logits[b, m, k] > -torch.inf]
        p, q = (step.teachers.logits[b, m, known] / T).softmax(0), (z[b, known] / T).softmax(0)
        naive = naive + w[b, m] * T**2 * (p * (p / q).log()).sum() / 4
    loss = PerTeacherSoftTargetLoss(T)(step)
    torch.testing.assert_close(loss, naive)
    expected = torch.autograd.grad(naive, z)[0]
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], expected)


def test_with_all_classes_known_value_and_gradient_are_those_of_the_plain_divergence_to_the_bit():
    for seed in range(5):
        step, T = make_step(B=16, M=3, K=10, seed=seed), 4.0
        student = F.log_softmax(step.student.logits / T, dim=1)[:, None].expand_as(step.teachers.logits)
        teachers = F.log_softmax(step.teachers.logits / T, dim=2)
        plain = T**2 * F.kl_div(student, teachers, reduction="none", log_target=True).sum(dim=2)
        found = soft_target_losses(step.student.logits, step.teachers.logits, T)
        assert torch.equal(found, plain)
        gradients = [torch.autograd.grad((step.weights.detach() * each).sum(dim=1).mean(),
                     step.student.logits)[0] for each in (found, plain)]  # fmt: skip
        assert torch.equal(*gradients)
