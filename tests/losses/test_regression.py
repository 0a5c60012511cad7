"""A regressor equals loops, and is negative where its teacher is."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amtml_pl.distill.published.losses import PublishedFeatureRegression
from amtml_pl.errors import UserError
from amtml_pl.losses.regression import FeatureRegression, relu_like
from amtml_pl.losses.regression_aekd import AekdFeatureRegression
from amtml_pl.losses.regression_confidence import ConfidenceFeatureRegression
from amtml_pl.types import OfferedFeatures, TensorShapes
from golden_steps import assert_golden
from losses.loops import errors_by_loops, regressed_by_loops, regression_of, weighted_by_loops
from losses.terms import STAGES, built
from steps import make_step

KINDS = [FeatureRegression, AekdFeatureRegression, ConfidenceFeatureRegression]


def on_last_maps(
    kind, B=8, student=(3, 4, 4), teachers=((5, 4, 4), (6, 2, 3)), dtype=torch.float32, **options
):
    """Return a term and a step: one teacher's map is activated, the other's takes both signs."""
    offered = {"t0": OfferedFeatures("layer3"), "t1": OfferedFeatures("layer3")}
    maps = dict(zip(("t0/layer3", "t1/layer3"), teachers, strict=True))
    taps = {"layer3": student}
    torch.manual_seed(0)
    term = kind(["layer3"], stage=None, grid=None, **options)
    term.build(TensorShapes(4, tuple(offered), taps, maps, offered))
    step = make_step(B, 2, 4, taps=taps, hints=maps, dtype=dtype)
    step.teachers.hints["t0/layer3"].abs_()
    step.teachers.hints["t1/layer3"].sub_(0.5)
    return term.to(dtype), step


@pytest.mark.parametrize("activation", ["as_teacher", "relu"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("side", [1, 3, 4, 8])
def test_a_map_of_any_size_is_resized_convolved_normalised_and_activated(side, training, activation):
    term, step = on_last_maps(
        FeatureRegression, B=3, student=(3, side, side), dtype=torch.float64, activation=activation
    )
    for regressor in term.regressors:
        for drawn in (regressor.norm.weight, regressor.norm.bias, regressor.norm.running_mean):
            nn.init.normal_(drawn)
        nn.init.uniform_(regressor.norm.running_var, 0.5, 2)
    term.train(training)
    torch.testing.assert_close(list(term.regressed(step)), regressed_by_loops(term, step))


@pytest.mark.parametrize(("B", "training"), [(2, True), (1, False)])
def test_maps_of_one_position_need_two_samples_in_training_and_one_in_evaluation(B, training):
    """Batch norm cannot train on one value a channel; `PackedDataModule` joins a last batch of one."""
    term, step = on_last_maps(FeatureRegression, B=B, teachers=((5, 1, 1), (6, 1, 1)), dtype=torch.float64)
    term.train(training)
    torch.testing.assert_close(list(term.regressed(step)), regressed_by_loops(term, step))
    term(step).backward()
    assert torch.isfinite(step.student.features["layer3"].grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_is_activated_where_the_teachers_is_and_as_published_every_map(kind):
    term, step = on_last_maps(kind)
    first, second = term.regressed(step)
    assert first.min() == 0
    assert second.min() < 0
    term, step = on_last_maps(kind, activation="relu")
    assert all(made.min() == 0 for made in term.regressed(step))


def test_an_activated_map_has_the_value_and_gradient_of_a_relu():
    made = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for like, expected in ((torch.rand(6, 3, 2, 2), F.relu(made)), (torch.rand(6, 3, 2, 2) - 0.9, made * 1)):
        got = relu_like(made, like)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(*(torch.autograd.grad(v.square().sum(), made)[0] for v in (got, expected)))


def test_an_activation_of_nan_is_nan():
    assert relu_like(torch.tensor([[[[torch.nan]]]]), torch.ones(1, 1, 1, 1)).isnan().all()


@pytest.mark.parametrize("kind", [FeatureRegression, PublishedFeatureRegression])
def test_plain_feature_regression(golden, kind):
    given, expected = golden("fitnet_hint")
    term, step = regression_of(kind, given["feat_s"], [given["feat_t"]], [given["A"]])
    assert_golden(term(step), expected["plain"])


@pytest.mark.parametrize("M", [1, 3])
@pytest.mark.parametrize("stage", [None, 2])
def test_a_regression_equals_loops_over_samples_teachers_and_elements(M, stage):
    plain, step = built(FeatureRegression(list(STAGES), stage), 4, M, dtype=torch.float64)
    errors = errors_by_loops(plain, step)
    assert plain(step).item() == pytest.approx(weighted_by_loops(errors, step.weights.tolist()))
    published, step = built(PublishedFeatureRegression(list(STAGES), stage), 4, M, dtype=torch.float64)
    errors = errors_by_loops(published, step)
    assert published(step).item() == pytest.approx(sum(map(sum, errors)) / (4 * M))
    assert not published(step).requires_grad  # as published, it trains nothing


def test_feature_weights_replace_the_steps_weights():
    term, step = built(FeatureRegression(list(STAGES)))
    alone = F.one_hot(torch.zeros(6, dtype=torch.long), 3).float()
    torch.testing.assert_close(term(replace(step, feature_weights=alone)), term(replace(step, weights=alone)))


def test_a_stage_that_the_student_does_not_have_is_refused():
    with pytest.raises(UserError, match=r"wrong stage .got 4, expected null or 1 to 3"):
        FeatureRegression(list(STAGES), stage=4)
