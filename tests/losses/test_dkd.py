"""Decoupled distillation."""

from dataclasses import replace
from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.losses.dkd import DecoupledLoss, decoupled_losses
from golden_steps import assert_golden, logit_step
from steps import make_step, with_gaps


def test_dkd(golden):
    given, expected = golden("dkd")
    student, teacher, labels, T = (given[n] for n in ("student_logits", "teacher_logits", "labels", "T"))
    target, rest = decoupled_losses(student, teacher, labels, T)
    assert_golden(target.mean(), expected["tckd"])
    assert_golden(rest.mean(), expected["nckd"])
    term = DecoupledLoss(T, epochs=0, warmup=0.0, alpha=given["alpha"], beta=given["beta"])
    assert_golden(term(logit_step(student, teacher[:, None], labels=labels)), expected["total"])


@given(seed=st.integers(0, 50), M=st.integers(1, 4), K=st.integers(2, 7))
@settings(max_examples=12)
def test_the_loss_equals_a_loop_over_samples_and_teachers(seed, M, K):
    step = make_step(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    z, w, T, naive = step.student.logits, step.weights, 3.0, 0.0
    for b, m in product(range(4), range(M)):
        p, q = (step.teachers.logits[b, m] / T).softmax(0), (z[b] / T).softmax(0)
        y = step.labels[b]
        rest = [c for c in range(K) if c != y]
        two_p, two_q = (torch.stack([v[y], v[rest].sum()]) for v in (p, q))
        target = (two_p * (two_p / two_q).log()).sum()
        pr, qr = p[rest] / p[rest].sum(), q[rest] / q[rest].sum()
        naive = naive + w[b, m] * T**2 * (target + 8 * (pr * (pr / qr).log()).sum()) / 4
    torch.testing.assert_close(DecoupledLoss(T, epochs=0, warmup=0.0)(step), naive)


def test_the_ramp_of_dkd_takes_a_twelfth_of_the_epochs():
    term, step = DecoupledLoss(4.0, epochs=24, warmup=1 / 12), make_step()
    full = term(replace(step, epoch=2))
    torch.testing.assert_close(term(step), full / 2)
    torch.testing.assert_close(term(replace(step, epoch=23)), full)


def test_the_published_warmup_of_dkd_is_exactly_20_of_240_epochs(configure):
    settings = configure("experiment=cifar100", "method=dkd", "trainer.max_epochs=240").loss.dkd
    assert DecoupledLoss(4.0, settings.epochs, settings.warmup).warmup_epochs == 20


@given(seed=st.integers(0, 200), M=st.integers(1, 4), K=st.integers(3, 7))
@settings(max_examples=20)
def test_a_teacher_is_compared_among_the_classes_that_it_knows(seed, M, K):
    step = with_gaps(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    z, w, T, naive = step.student.logits, step.weights, 3.0, 0.0
    for b, m in product(range(4), range(M)):
        known = [k for k in range(K) if step.teachers.logits[b, m, k] > -torch.inf]
        p, q = (torch.zeros(K).double().index_put((torch.tensor(known),), (v[known] / T).softmax(0))
                for v in (step.teachers.logits[b, m], z[b]))  # fmt: skip
        y = int(step.labels[b])
        rest, target = [c for c in known if c != y], 0.0
        if y in known:
            two_p, two_q = (torch.stack([v[y], v[rest].sum()]) for v in (p, q))
            target = (two_p * (two_p / two_q).log()).sum()
        pr, qr = p[rest] / p[rest].sum(), q[rest] / q[rest].sum()
        naive = naive + w[b, m] * T**2 * (target + 8 * (pr * (pr / qr).log()).sum()) / 4
    loss = DecoupledLoss(T, epochs=0, warmup=0.0)(step)
    torch.testing.assert_close(loss, naive)
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(naive, z)[0])
