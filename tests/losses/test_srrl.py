"""Softmax regression: embeddings, and logits of the teachers' classifiers."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from amtml_pl.losses.srrl import SoftmaxRegression, embedding_errors, logit_errors
from golden_steps import assert_golden
from losses.loops import LOWERED, regressed_by_loops, regression_of
from losses.terms import STAGES, built
from steps import with_gaps


class Classifier(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix.double()

    def forward(self, feature):
        return (feature + LOWERED).mean(dim=(2, 3)) @ self.matrix.T


def test_softmax_regression(golden):
    given, expected = golden("srrl")
    term, step = regression_of(SoftmaxRegression, given["feat_s"], [given["feat_t"]], [given["A"]])
    head = Classifier(given["head"])
    term.set_teacher_heads({term.names[0]: head})
    logits = head(step.teachers.hints[term.names[0]])
    step = replace(step, teachers=replace(step.teachers, logits=logits[:, None]))
    [made], [target] = term.regressed(step), term.targets(step)
    assert_golden(embedding_errors(made, target).mean(), expected["embedding"])
    assert_golden(logit_errors(head(made), logits).mean(), expected["logits"])
    assert_golden(term(step), expected["loss"])


@pytest.mark.parametrize("M", [1, 3])
def test_the_loss_equals_loops_over_samples_teachers_channels_and_known_classes(M):
    term, step = built(SoftmaxRegression(list(STAGES)), 4, M, dtype=torch.float64)
    gaps = with_gaps(4, M, dtype=torch.float64).teachers.logits
    step = replace(step, teachers=replace(step.teachers, logits=gaps))
    naive = 0.0
    for m, made in enumerate(regressed_by_loops(term, step)):
        logits = term.heads[m](made)
        for b in range(4):
            target = step.teachers.hints[term.names[m]][b]
            channels = range(len(target))
            own = sum((made[b, c].mean() - target[c].mean()) ** 2 for c in channels) / len(target)
            known = [k for k in range(5) if gaps[b, m, k] > -torch.inf]
            classes = sum((logits[b, k] - gaps[b, m, k]) ** 2 for k in known) / len(known)
            naive = naive + step.weights[b, m] * (own + classes) / 4
    value, feature = term(step), step.student.features["layer3"]
    torch.testing.assert_close(value, naive)
    torch.testing.assert_close(*(torch.autograd.grad(v, feature)[0] for v in (value, naive)))


@given(seed=st.integers(0, 50))
@settings(max_examples=10)
def test_the_gradients_of_both_errors(seed):
    generator = torch.Generator().manual_seed(seed)
    made, target = torch.randn(2, 2, 3, 2, 2, generator=generator, dtype=torch.float64)
    own, theirs = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)
    theirs[0, 1] = -torch.inf
    assert torch.autograd.gradcheck(embedding_errors, (made.requires_grad_(), target))
    assert torch.autograd.gradcheck(logit_errors, (own.requires_grad_(), theirs))


def test_a_student_with_the_teachers_embedding_and_logits_has_no_loss():
    made = torch.rand(3, 4, 2, 2)
    assert embedding_errors(made, made.mean(dim=(2, 3), keepdim=True)).abs().max() < 1e-12
    logits = torch.tensor([[1.0, -torch.inf, 2.0]])
    assert logit_errors(logits.nan_to_num(neginf=7.0), logits).item() == 0


def test_classifiers_of_the_teachers_are_in_no_checkpoint_and_no_optimiser():
    term, _ = built(SoftmaxRegression(list(STAGES)))
    assert not [name for name in term.state_dict() if "fc" in name]
    assert len(term.heads) == 3
