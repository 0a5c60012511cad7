"""Properties of the weightings that read a batch: rows, one sample alone, degenerate teachers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.distill.published.weighting import PublishedAdaptiveWeighting
from amtml_pl.types import TeacherOutputs
from amtml_pl.weighting.adaptive import AdaptiveWeighting
from amtml_pl.weighting.aekd import AekdWeighting
from amtml_pl.weighting.confidence import ConfidenceWeighting
from amtml_pl.weighting.entropy import EntropyWeighting
from amtml_pl.weighting.uniform import UniformWeighting
from steps import make_step
from weighting.schemes import step_and_weights

COMPUTED = [EntropyWeighting(), ConfidenceWeighting(), AekdWeighting(4.0)]
BY_POSITION = [AdaptiveWeighting("last", "uniform", lr=None), PublishedAdaptiveWeighting("last", lr=None)]
EVERY = [UniformWeighting(), *COMPUTED, *BY_POSITION]


def named(scheme):
    return type(scheme).__name__


@pytest.mark.parametrize("scheme", EVERY, ids=named)
@given(B=st.integers(1, 6), M=st.integers(1, 8), seed=st.integers(0, 20))
@settings(max_examples=10)
def test_rows_sum_to_one_and_permuting_the_teachers_permutes_the_columns(scheme, B, M, seed):
    step, weights = step_and_weights(scheme, B, M, seed=seed)
    assert weights.shape == (B, M)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(B))
    if scheme in BY_POSITION:
        return
    order = torch.randperm(M, generator=torch.Generator().manual_seed(seed))
    turned = TeacherOutputs(tuple(f"t{m}" for m in order), step.teachers.logits[:, order])
    found = scheme(step.student, turned, step.labels)
    torch.testing.assert_close(found, weights[:, order], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("scheme", EVERY, ids=named)
def test_a_sample_alone_has_the_same_weights_unless_the_scheme_weighs_batches(scheme):
    step, weights = step_and_weights(scheme)
    student, teachers = (outputs.map(lambda tensor: tensor[2:3]) for outputs in (step.student, step.teachers))
    found = scheme(student, teachers, step.labels[2:3])
    assert torch.allclose(found, weights[2:3], atol=1e-6) != scheme.weighs_batches


@pytest.mark.parametrize("scheme", COMPUTED, ids=named)
def test_identical_teachers_share_equally_and_saturated_ones_give_usable_weights(scheme):
    step = make_step()
    same = TeacherOutputs(step.teachers.names, step.teachers.logits[:, :1].expand(-1, 3, -1).contiguous())
    torch.testing.assert_close(scheme(step.student, same, step.labels), torch.full((6, 3), 1 / 3))
    for size in (0.0, 1e4):
        teachers = TeacherOutputs(step.teachers.names, size * step.teachers.logits.sign())
        weights = scheme(step.student, teachers, step.labels)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))
        assert not weights.requires_grad


@pytest.mark.parametrize("scheme", EVERY, ids=named)
def test_classes_that_a_teacher_does_not_know_leave_rows_that_sum_to_one(scheme):
    step, _ = step_and_weights(scheme)
    logits = step.teachers.logits.clone()
    logits[:, 0, 2:], logits[:, 1, :3] = -torch.inf, -torch.inf
    weights = scheme(step.student, replace(step.teachers, logits=logits), step.labels)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))
    if scheme.reads_labels:
        assert not weights[:, 0][step.labels >= 2].any()
        assert not weights[:, 1][step.labels < 3].any()
