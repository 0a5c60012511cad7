"""Weights of teachers that do not know every class."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.weighting.aekd import logit_gradients
from amtml_pl.weighting.confidence import confidence_weights
from amtml_pl.weighting.entropy import entropy_weights
from amtml_pl.weighting.held_out import held_out_weights
from amtml_pl.weighting.known_classes import among_those_who_know, knows_label
from steps import with_gaps

seeds = st.integers(0, 200)


def softmax_among(values, places):
    total = sum(math.exp(values[place]) for place in places)
    return {place: math.exp(values[place]) / total for place in places}


@given(seed=seeds, M=st.integers(1, 4), K=st.integers(3, 6))
@settings(max_examples=25)
def test_confidence_weights_equal_a_loop_over_the_teachers_that_know_the_label(seed, M, K):
    step = with_gaps(B=5, M=M, K=K, seed=seed, dtype=torch.float64)
    logits, weights = step.teachers.logits, confidence_weights(step.teachers.logits, step.labels)
    for b, y in enumerate(step.labels.tolist()):
        losses = {}
        for m in range(M):
            known = [k for k in range(K) if logits[b, m, k] > -math.inf]
            if y in known:
                losses[m] = -math.log(softmax_among(logits[b, m].tolist(), known)[y])
        naive = dict.fromkeys(range(M), 0.0)
        if not losses:
            naive = dict.fromkeys(range(M), 1 / M)
        elif len(losses) == 1:
            naive[next(iter(losses))] = 1.0
        else:
            shares = softmax_among(losses, losses)
            naive |= {m: (1 - shares[m]) / (len(losses) - 1) for m in losses}
        torch.testing.assert_close(weights[b], torch.tensor([naive[m] for m in range(M)]).double())


@given(seed=seeds, M=st.integers(2, 4), K=st.integers(3, 6))
@settings(max_examples=25)
def test_entropies_are_those_of_the_known_classes_relative_to_the_largest_possible(seed, M, K):
    logits = with_gaps(B=4, M=M, K=K, seed=seed, dtype=torch.float64).teachers.logits
    for b, weights in enumerate(entropy_weights(logits)):
        entropies = []
        for m in range(M):
            known = [k for k in range(K) if logits[b, m, k] > -math.inf]
            p = softmax_among(logits[b, m].tolist(), known).values()
            entropies.append(sum(-each * math.log(each) for each in p) * math.log(K) / math.log(len(known)))
        naive = [(1 - entropy / sum(entropies)) / (M - 1) for entropy in entropies]
        torch.testing.assert_close(weights, torch.tensor(naive).double())


@given(seed=seeds)
@settings(max_examples=10)
def test_the_gradient_of_a_teacher_is_zero_for_a_class_that_it_does_not_know(seed):
    step = with_gaps(B=4, M=3, K=5, seed=seed, dtype=torch.float64)
    own, logits = step.student.logits.detach(), step.teachers.logits
    gradients, T = logit_gradients(own, logits, 3.0), 3.0
    for m in range(3):
        for b in range(4):
            known = [k for k in range(5) if logits[b, m, k] > -math.inf]
            p, q = (softmax_among((each / T).tolist(), known) for each in (own[b], logits[b, m]))
            naive = [T * (p[k] - q[k]) / 4 if k in known else 0.0 for k in range(5)]
            torch.testing.assert_close(gradients[m, b], torch.tensor(naive).double())


def test_weights_that_read_labels_leave_out_who_does_not_know_them():
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.0, 0.0, 1.0], [0.5, 0.3, 0.2]])
    knows = torch.tensor([[1, 0, 1], [1, 1, 1], [1, 1, 0], [0, 0, 0]]).bool()
    found = among_those_who_know(weights, knows)
    expected = [[5 / 7, 0.0, 2 / 7], [0.5, 0.3, 0.2], [0.5, 0.5, 0.0], [0.5, 0.3, 0.2]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_held_out_weights_are_the_shares_of_the_labels_that_two_sure_specialists_know():
    labels = torch.tensor([0] * 60 + [2] * 20)
    logits = torch.full((80, 2, 4), -torch.inf)
    logits[:, 0, :2], logits[:, 1, 2:] = torch.tensor([9.0, 0.0]), torch.tensor([9.0, 0.0])
    torch.testing.assert_close(held_out_weights(logits, labels), torch.tensor([61 / 82, 21 / 82]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_label_is_known_where_its_logit_is_finite_in_every_type(dtype):
    logits = torch.tensor([[[0.0, -torch.inf], [1.0, -60000.0]]], dtype=dtype)
    assert knows_label(logits, torch.tensor([1])).tolist() == [[False, True]]
