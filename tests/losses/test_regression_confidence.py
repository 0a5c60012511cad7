"""CA-MKD's regression, corrected and as published."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from amtml_pl.distill.published.losses import PublishedConfidenceFeatureRegression as PublishedConfidence
from amtml_pl.losses.regression_confidence import ConfidenceFeatureRegression
from golden_steps import assert_golden
from losses.loops import LOWERED, errors_by_loops, regressed_by_loops, regression_of, weighted_by_loops
from losses.terms import STAGES, built


def test_the_intermediate_loss_of_camkd(golden):
    given, expected = golden("camkd")
    losses = {"inter_paper": ConfidenceFeatureRegression, "inter_ref": PublishedConfidence}
    for name, kind in losses.items():
        term, step = regression_of(kind, given["feat_s"], given["feat_t"], given["A"])
        step = replace(step, labels=given["labels_int"])
        term.set_teacher_heads(dict(zip(term.names, map(Classifier, given["heads"]), strict=True)))
        assert_golden(term.own_weights(step).T, expected["w_int"])
        assert_golden(term.errors(step).T, expected["mse"])
        assert_golden(term(step), expected[name])


class Classifier(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix.double()

    def forward(self, feature):
        return (feature + LOWERED).mean(dim=(2, 3)) @ self.matrix.T


@pytest.mark.parametrize("M", [1, 2, 3])
@pytest.mark.parametrize("kind", [ConfidenceFeatureRegression, PublishedConfidence])
def test_the_regression_of_camkd_equals_loops_over_the_opinions_of_the_teachers_classifiers(kind, M):
    term, step = built(kind(list(STAGES)), 4, M, dtype=torch.float64)
    regressed = regressed_by_loops(term, step)
    opinions = [head(made).tolist() for head, made in zip(term.heads, regressed, strict=True)]
    weights = []
    for b, label in enumerate(step.labels.tolist()):
        own = [opinions[m][b] for m in range(M)]
        blame = [sum(map(math.exp, each)) / math.exp(each[label]) for each in own]  # exp of the cross-entropy
        weights.append([(1 - each / sum(blame)) / (M - 1) if M > 1 else 1.0 for each in blame])
    once_more = M if kind is PublishedConfidence else 1
    naive = weighted_by_loops(errors_by_loops(term, step), weights) / once_more
    assert term(step).item() == pytest.approx(naive)


def test_the_weights_of_camkd_are_constants_and_those_of_its_code_are_not():
    for kind, constant in ((ConfidenceFeatureRegression, True), (PublishedConfidence, False)):
        term, step = built(kind(list(STAGES)))
        weights = term.own_weights(step)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(6))
        assert weights.requires_grad is not constant


def test_classifiers_of_the_teachers_are_in_no_checkpoint_and_no_optimiser():
    term, _ = built(ConfidenceFeatureRegression(list(STAGES)))
    assert not [name for name in term.state_dict() if "fc" in name]
    assert len(term.heads) == 3
