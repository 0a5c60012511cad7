"""Standardised logits, and the terms that use them."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from amtml_pl.config.checks import check
from amtml_pl.errors import UserError
from amtml_pl.losses.dkd import DecoupledLoss
from amtml_pl.losses.kd import SoftTargetLoss
from amtml_pl.losses.kd_each import PerTeacherSoftTargetLoss
from amtml_pl.losses.standardize import standardized
from golden_steps import assert_golden, logit_step, teachers_of
from losses.terms import term_of
from steps import make_step, with_gaps

ORDERS, MIXTURES = ("teachers", "mixture"), ("probabilities", "logits")
SEEDS = st.integers(0, 200)


def golden_step(given):
    step = logit_step(given["student_logits"], teachers_of(given), labels=given["labels"])
    return replace(step, weights=given["weights"])


def test_standardised_logits(golden):
    given, expected = golden("standardized")
    assert_golden(standardized(given["student_logits"]), expected["normalised"])


def test_standardised_logits_in_double_precision_have_no_rounding_of_single_precision():
    logits = torch.randn(4, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    naive = (logits - logits.mean(dim=1, keepdim=True)) / (1e-7 + logits.std(dim=1, keepdim=True))
    torch.testing.assert_close(standardized(logits), naive, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("order", "mixture"), [*product(ORDERS, MIXTURES)])
def test_kd_with_both_orders(golden, order, mixture):
    given, expected = golden("standardized")
    value = SoftTargetLoss(given["T"], mixture, order)(golden_step(given))
    assert_golden(value, expected[order if mixture == "probabilities" else f"{order}_of_logits"])


def test_kd_of_one_teacher_is_the_published_loss(golden):
    given, expected = golden("standardized")
    step = golden_step(given)
    single = replace(step, weights=torch.eye(3, dtype=torch.float64)[0].expand(4, 3))
    for order, mixture in product(ORDERS, MIXTURES):
        assert_golden(SoftTargetLoss(given["T"], mixture, order)(single), expected["single"])
    assert_golden(PerTeacherSoftTargetLoss(given["T"], standardize=True)(single), expected["single"])


def test_kd_each_and_dkd(golden):
    given, expected = golden("standardized")
    T, step = given["T"], golden_step(given)
    assert_golden(PerTeacherSoftTargetLoss(T, standardize=True)(step), expected["each"])
    single = replace(step, weights=torch.eye(3, dtype=torch.float64)[0].expand(4, 3))
    for part in ("tckd", "nckd"):
        multipliers = {"alpha": float(part == "tckd"), "beta": float(part == "nckd")}
        term = DecoupledLoss(T, epochs=0, warmup=0.0, **multipliers, standardize=True)
        assert_golden(term(single), expected[part])


def loop(z):
    """Standardise one row without its unknown classes, in plain steps."""
    known = [k for k in range(len(z)) if z[k] > -torch.inf]
    mean = sum(z[k] for k in known) / len(known)
    variance = sum((z[k] - mean) ** 2 for k in known) / (len(known) - 1)
    return known, torch.stack([(z[k] - mean) / (1e-7 + variance.sqrt()) for k in known])


@given(SEEDS, st.sampled_from(ORDERS), st.integers(1, 4), st.integers(3, 7))
@settings(max_examples=20)
def test_kd_equals_a_loop_and_standardises_a_teacher_over_the_classes_that_it_knows(seed, order, M, K):
    step = with_gaps(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    z, w, T, naive = step.student.logits, step.weights.detach(), 3.0, 0.0
    for b in range(4):
        q = torch.zeros(K).double()
        for m in range(M):
            t = step.teachers.logits[b, m]
            known, n = loop(t) if order == "teachers" else (range(K), t)
            q[list(known)] += w[b, m] * (n / T).softmax(0)
        if order == "mixture":
            known, n = loop(T * q.log())
            q = torch.zeros(K).double().index_put((torch.tensor(known),), (n / T).softmax(0))
        s = torch.zeros(K).double().masked_scatter(q > 0, (loop(z[b, q > 0])[1] / T).softmax(0))
        naive = naive + T**2 * (q[q > 0] * (q[q > 0] / s[q > 0]).log()).sum() / 4
        for m in range(M):  # only the classes that a teacher knows, or any does, are compared
            known = q > 0 if order == "mixture" else step.teachers.logits[b, m] > -torch.inf
            naive = naive + T**2 * w[b, m] * s[known].sum().log() / 4
    loss = SoftTargetLoss(T, standardize=order)(step)
    torch.testing.assert_close(loss, naive)
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(naive, z)[0])


@given(SEEDS, st.sampled_from(ORDERS), st.integers(1, 4), st.integers(3, 7))
@settings(max_examples=20)
def test_for_one_teacher_with_all_the_weight_kd_is_kd_each(seed, order, M, K):
    step = with_gaps(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    weights = torch.eye(M, dtype=torch.float64)[seed % M].expand(4, M)
    step, z = replace(step, weights=weights), step.student.logits
    terms = SoftTargetLoss(3.0, standardize=order), PerTeacherSoftTargetLoss(3.0, standardize=True)
    values = [term(step) for term in terms]
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*(torch.autograd.grad(value, z)[0] for value in values))


@given(SEEDS, st.integers(1, 4), st.integers(3, 7))
@settings(max_examples=20)
def test_kd_each_standardises_both_sides_over_the_classes_that_a_teacher_knows(seed, M, K):
    step = with_gaps(B=4, M=M, K=K, seed=seed, dtype=torch.float64)
    z, w, T, naive = step.student.logits, step.weights, 3.0, 0.0
    for b, m in product(range(4), range(M)):
        known, n = loop(step.teachers.logits[b, m])
        p, s = (n / T).softmax(0), (loop(z[b, known])[1] / T).softmax(0)
        naive = naive + w[b, m] * T**2 * (p * (p / s).log()).sum() / 4
    loss = PerTeacherSoftTargetLoss(T, standardize=True)(step)
    torch.testing.assert_close(loss, naive)
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], torch.autograd.grad(naive, z)[0])


@given(SEEDS, st.floats(0.2, 5), st.floats(-9, 9))
@settings(max_examples=20)
def test_shift_and_scale_of_the_logits_change_nothing(seed, scale, shift):
    step = make_step(seed=seed, dtype=torch.float64)
    other = step.teachers.map(lambda z: scale * z + shift), step.student.map(lambda z: scale * z - shift)
    other = replace(step, teachers=other[0], student=other[1])
    for term in (SoftTargetLoss(2.0, standardize="teachers"), PerTeacherSoftTargetLoss(2.0, standardize=True),
                 DecoupledLoss(2.0, epochs=0, warmup=0.0, standardize=True)):  # fmt: skip
        torch.testing.assert_close(term(other), term(step), rtol=1e-5, atol=1e-9)


def test_the_mixture_that_is_standardised_can_be_reached_and_that_of_standardised_teachers_cannot():
    step, T = make_step(M=3, dtype=torch.float64), 2.0
    q = torch.einsum("bm,bmk->bk", step.weights.detach(), (step.teachers.logits / T).softmax(2))
    perfect = replace(step, student=replace(step.student, logits=T * q.log()))
    assert float(SoftTargetLoss(T, standardize="mixture")(perfect)) == pytest.approx(0, abs=1e-12)
    assert SoftTargetLoss(T, standardize="mixture").vanishes_at_targets
    assert float(SoftTargetLoss(T, standardize="teachers")(perfect)) > 1e-4
    assert not SoftTargetLoss(T, standardize="teachers").vanishes_at_targets


TERMS = {
    **{order: SoftTargetLoss(2.0, standardize=order) for order in ORDERS},
    "kd_each": PerTeacherSoftTargetLoss(2.0, standardize=True),
    "dkd": DecoupledLoss(2.0, epochs=0, warmup=0.0, standardize=True),
}


@pytest.mark.parametrize("name", TERMS)
def test_the_gradient_is_that_of_the_value(name):
    step = with_gaps(B=3, M=2, K=4, seed=3, dtype=torch.float64)

    def value(z):
        return TERMS[name](replace(step, student=replace(step.student, logits=z)))

    assert gradcheck(value, step.student.logits)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("student_scale", [0.0, 1e4])
@pytest.mark.parametrize("teacher_scale", [0.0, 1.0, 1e4])
def test_equal_and_very_large_logits_give_finite_values_and_gradients(name, student_scale, teacher_scale):
    step = make_step(B=5)
    step.student.logits.data *= student_scale
    step.teachers.logits.mul_(teacher_scale)
    value = TERMS[name](step)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(step.student.logits.grad).all()


def test_the_files_choose_the_order():
    assert term_of("kd").standardize == "none"
    assert term_of("kd_standardized").standardize == "teachers"


def test_a_wrong_order_is_refused_with_the_choices(configure):
    with pytest.raises(UserError, match=r"loss\.kd\.standardize(.|\n)*after(.|\n)*mixture"):
        check(configure("experiment=digits", "method=avg_lskd", "loss.kd.standardize=after"))
    check(configure("experiment=digits", "method=avg_lskd", "loss.kd.standardize=mixture"))
