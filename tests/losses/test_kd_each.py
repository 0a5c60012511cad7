"""Distillation towards every teacher by itself."""

from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss, soft_target_losses
from amtml_pl.weighting.confidence import ConfidenceWeighting
from amtml_pl.weighting.entropy import EntropyWeighting
from golden_steps import assert_golden, logit_step, teachers_of, weighted
from steps import make_step


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
