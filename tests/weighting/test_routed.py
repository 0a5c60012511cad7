"""Routing: one teacher per sample, by the label's class or by who is right."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.types import TensorShapes
from amtml_pl.weighting.routed import RoutedWeighting, best_teacher_by_class, likeliest_teacher
from steps import make_step, with_gaps
from weighting.schemes import weigh


@given(seed=st.integers(0, 999), M=st.integers(1, 4), K=st.integers(2, 5))
@settings(max_examples=20)
def test_the_teacher_of_a_class_has_the_most_correct_held_out_images_of_it(seed, M, K):
    torch.manual_seed(seed)
    logits, labels = torch.randn(40, M, K, dtype=torch.float64), torch.randint(K, (40,))
    found = best_teacher_by_class(logits, labels)
    for k in range(K):
        members = [n for n in range(40) if labels[n] == k]
        ranked = []
        for m in range(M):
            right = sum(int(logits[n, m].argmax() == k) for n in members)
            ranked.append((right, sum(float(logits[n, m].softmax(0)[k]) for n in members), -m))
        assert -max(ranked)[2] == found[k]


def test_routing_by_class_puts_the_whole_weight_on_the_teacher_of_the_label():
    scheme = RoutedWeighting("class")
    scheme.build(TensorShapes(classes=3, teachers=("t0", "t1")))
    labels = torch.tensor([0, 1, 2, 2])
    logits = torch.zeros(4, 2, 3)
    logits[0, 1, 0] = logits[1, 0, 1] = logits[2, 1, 2] = logits[3, 1, 2] = 5.0
    scheme.fit_to_held_out(logits, labels)
    assert scheme.best.tolist() == [1, 0, 1]
    assert "best" in scheme.state_dict()
    step = make_step(B=3, M=2, K=3)
    weights = weigh(scheme, replace(step, labels=torch.tensor([2, 1, 0])))
    assert weights.tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]


@given(seed=st.integers(0, 999), M=st.integers(1, 4))
@settings(max_examples=20)
def test_routing_by_correctness_takes_the_highest_probability_of_the_label(seed, M):
    step = with_gaps(B=5, M=M, K=4, seed=seed)
    weights = weigh(RoutedWeighting("correctness"), step)
    for b, y in enumerate(step.labels.tolist()):
        own = [float(step.teachers.logits[b, m].softmax(0)[y]) for m in range(M)]
        if max(own) == 0:
            torch.testing.assert_close(weights[b], torch.full((M,), 1 / M))
        else:
            assert weights[b].tolist() == [float(m == own.index(max(own))) for m in range(M)]


@pytest.mark.parametrize("by", ["class", "correctness"])
def test_only_routing_by_class_needs_held_out_images(by):
    scheme = RoutedWeighting(by)
    assert scheme.reads_labels
    assert (scheme.needs_held_out, scheme.depends_on_order) == ((by == "class",) * 2)


def test_a_label_that_no_teacher_knows_gives_uniform_weights():
    logits = torch.tensor([[[0.0, -torch.inf, 1.0], [2.0, -torch.inf, 0.0]]])
    assert likeliest_teacher(logits, torch.tensor([1])).tolist() == [[0.5, 0.5]]
