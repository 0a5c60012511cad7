"""Normalised distillation."""

from dataclasses import replace
from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from amtml_pl.losses.nkd import NormalizedLoss, normalized_losses
from golden_steps import assert_golden, logit_step
from steps import make_step, with_gaps


def test_nkd(golden):
    given, expected = golden("nkd")
    student, teacher, labels, T = (given[n] for n in ("student_logits", "teacher_logits", "labels", "T"))
    target, rest = normalized_losses(student, teacher, labels, T)
    assert_golden(target.mean(), expected["target"])
    assert_golden(rest.mean(), expected["rest"])
    term = NormalizedLoss(T, gamma=given["gamma"])
    assert_golden(term(logit_step(student, teacher[:, None], labels=labels)), expected["total"])


@given(seed=st.integers(0, 200), M=st.integers(1, 4), K=st.integers(2, 7))
@settings(max_examples=20)
def test_the_loss_equals_a_loop_over_samples_and_teachers(seed, M, K):
    """A teacher is compared among the classes that it knows."""
    step = with_gaps(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    z, w, T, naive = step.student.logits, step.weights.detach(), 3.0, 0.0
    for b, m in product(range(4), range(M)):
        t, y = step.teachers.logits[b, m], int(step.labels[b])
        known = [k for k in range(K) if t[k] > -torch.inf]
        if y in known:
            at = known.index(y)
            naive = naive - w[b, m] * t[known].softmax(0)[at] * z[b, known].softmax(0)[at].log() / 4
        rest = [k for k in known if k != y]
        p, s = (t[rest] / T).softmax(0), (z[b, rest] / T).softmax(0)
        naive = naive - w[b, m] * 1.5 * T**2 * (p * s.log()).sum() / 4
    loss = NormalizedLoss(T)(step)
    torch.testing.assert_close(loss, naive)
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(naive, z)[0])


def test_the_gradient_is_that_of_the_value():
    step = with_gaps(B=3, M=2, K=4, seed=3, dtype=torch.float64)

    def value(z):
        return NormalizedLoss(2.0)(replace(step, student=replace(step.student, logits=z)))

    assert gradcheck(value, step.student.logits)


def test_the_part_of_the_other_classes_is_smallest_for_the_teachers_proportions():
    teacher = make_step(M=1, K=6, dtype=torch.float64).teachers.logits[:, 0]
    student, labels = teacher.clone(), torch.arange(6)
    student[torch.arange(6), labels] += 3.0  # the label does not matter
    student.requires_grad_()
    rest = normalized_losses(student, teacher, labels, 2.0)[1].sum()
    (gradient,) = torch.autograd.grad(rest, student)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_a_sure_teacher_and_a_sure_student_give_finite_values_and_gradients():
    """The logarithm of a softmax that underflows to 0 would be minus infinity."""
    step = make_step(B=5)
    student = (step.student.logits.detach() * 1e4).requires_grad_()
    loss = sum(
        each.mean() for each in normalized_losses(student, step.teachers.logits[:, 0] * 1e4, step.labels, 1.0)
    )
    (gradient,) = torch.autograd.grad(loss, student)
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
