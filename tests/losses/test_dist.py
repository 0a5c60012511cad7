"""Correlation of the outputs over classes and over samples."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from amtml_pl.losses.dist import RelationalLogitLoss, relation_losses
from golden_steps import assert_golden, logit_step
from steps import make_step, with_gaps


def test_dist(golden):
    given, expected = golden("dist")
    student, teacher, T = (given[n] for n in ("student_logits", "teacher_logits", "T"))
    inter, intra = relation_losses(student, teacher, T)
    assert_golden(inter.mean(), expected["inter"])
    assert_golden(intra, expected["intra"])
    term = RelationalLogitLoss(T, beta=given["beta"], gamma=given["gamma"])
    assert_golden(term(logit_step(student, teacher[:, None])), expected["total"])


def pearson(a, b):
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / ((a**2).sum().sqrt() * (b**2).sum().sqrt() + 1e-8)


@given(seed=st.integers(0, 200), M=st.integers(1, 4), K=st.integers(3, 7))
@settings(max_examples=20)
def test_the_loss_equals_a_loop_over_samples_classes_and_teachers(seed, M, K):
    """A teacher is compared among the classes that it knows."""
    step = with_gaps(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    z, w, T, naive = step.student.logits, step.weights.detach(), 3.0, 0.0
    for m in range(M):
        known = [k for k in range(K) if step.teachers.logits[0, m, k] > -torch.inf]
        p, s = ((logits[:, known] / T).softmax(1) for logits in (step.teachers.logits[:, m], z))
        for b in range(4):
            naive = naive + w[b, m] * T**2 * 2 * (1 - pearson(s[b], p[b])) / 4
        for k in range(len(known)):
            naive = naive + w[:, m].mean() * T**2 * 3 * (1 - pearson(s[:, k], p[:, k])) / len(known)
    loss = RelationalLogitLoss(T, beta=2.0, gamma=3.0)(step)
    torch.testing.assert_close(loss, naive)
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(naive, z)[0])


def test_the_gradient_is_that_of_the_value():
    step = make_step(B=3, M=2, K=4, dtype=torch.float64)

    def value(z):
        return RelationalLogitLoss(2.0)(replace(step, student=replace(step.student, logits=z)))

    assert gradcheck(value, step.student.logits)


@given(seed=st.integers(0, 50), scale=st.floats(0.1, 9), shift=st.floats(-3, 3))
@settings(max_examples=12)
def test_outputs_need_only_to_be_linear_in_the_teachers(seed, scale, shift):
    """Two probabilities of a student that are scaled towards the uniform ones keep every correlation."""
    teacher = make_step(M=1, seed=seed, dtype=torch.float64).teachers.logits[:, 0].softmax(1)
    share = 1 / (1 + scale)
    inter, intra = relation_losses((share * teacher + (1 - share) / 5).log() + shift, teacher.log(), 1.0)
    torch.testing.assert_close(inter, torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(intra, torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-4)


def test_constant_rows_and_columns_give_finite_values_and_gradients():
    step = make_step(B=5)
    equal = torch.zeros(5, 5).requires_grad_()
    for student, teacher in ((equal, step.teachers.logits[:, 0]), (step.student.logits, torch.zeros(5, 5)),
                             (step.student.logits, step.teachers.logits[:1, 0].expand(5, 5))):  # fmt: skip
        inter, intra = relation_losses(student, teacher, 4.0)
        loss = inter.mean() + intra
        (gradient,) = torch.autograd.grad(loss, student)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()
    torch.testing.assert_close(
        relation_losses(equal, step.teachers.logits[:, 0], 4.0)[0], torch.full((5,), 16.0)
    )
