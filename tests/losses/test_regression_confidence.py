"""CA-MKD's regression, corrected and as published."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amtml_pl.distill.published.losses import PublishedConfidenceFeatureRegression as PublishedConfidence
from amtml_pl.losses.regression_confidence import ConfidenceFeatureRegression
from amtml_pl.types import OfferedFeatures, TensorShapes
from golden_steps import assert_golden
from losses.loops import LOWERED, errors_by_loops, regressed_by_loops, regression_of, weighted_by_loops
from losses.terms import STAGES, built
from steps import make_step


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


@pytest.mark.parametrize(("student", "teachers"), [(4, [8]), (8, [4]), (4, [2, 8, 4]), (3, [7, 5])])
def test_as_published_a_smaller_map_is_interpolated_and_each_teacher_gets_it_as_resized_before(
    student, teachers
):
    offered = {f"t{m}": OfferedFeatures("layer3") for m in range(len(teachers))}
    maps = {f"{name}/layer3": (5, side, side) for name, side in zip(offered, teachers, strict=True)}
    taps = {"layer3": (3, student, student)}
    term = PublishedConfidence(["layer3"], activation="relu")
    term.build(TensorShapes(4, tuple(offered), taps, maps, offered))
    feature = make_step(taps=taps, dtype=torch.float64).student.features["layer3"]
    expected, resized = [], feature
    for side in teachers:
        if student >= side:
            resized = F.adaptive_avg_pool2d(resized, side)
        else:
            resized = F.interpolate(resized, size=(side, side), mode="bilinear")
        expected.append(resized)
    found = term.resized(feature)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(sum((each**3).sum() for each in made), feature)[0] for made in
                 (found, expected)]  # fmt: skip
    torch.testing.assert_close(*gradients)


def test_classifiers_of_the_teachers_are_in_no_checkpoint_and_no_optimiser():
    term, _ = built(ConfidenceFeatureRegression(list(STAGES)))
    assert not [name for name in term.state_dict() if "fc" in name]
    assert len(term.heads) == 3
