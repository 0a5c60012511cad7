"""A regressor equals loops, and is negative where its teacher is."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from amtml_pl.losses.regression import FeatureRegression, relu_like
from amtml_pl.losses.regression_aekd import AekdFeatureRegression
from amtml_pl.losses.regression_confidence import ConfidenceFeatureRegression
from amtml_pl.types import OfferedFeatures, TensorShapes
from steps import make_step

pytestmark = pytest.mark.numbers

KINDS = [FeatureRegression, AekdFeatureRegression, ConfidenceFeatureRegression]


def built(kind, B=8, student=(3, 4, 4), teachers=((5, 4, 4), (6, 2, 3)), dtype=torch.float32, **options):
    """Return a term and a step: one teacher's map is activated, the other's takes both signs."""
    offered = {"t0": OfferedFeatures("layer3"), "t1": OfferedFeatures("layer3")}
    maps = dict(zip(("t0/layer3", "t1/layer3"), teachers, strict=True))
    taps = {"layer3": student}
    torch.manual_seed(0)
    term = kind(["layer3"], **options)
    term.build(TensorShapes(4, tuple(offered), taps, maps, offered))
    step = make_step(B, 2, 4, taps=taps, hints=maps, dtype=dtype)
    step.teachers.hints["t0/layer3"].abs_()
    step.teachers.hints["t1/layer3"].sub_(0.5)
    return term.to(dtype), step


def regressed_by_loops(term, step):
    """Return each teacher's regression: pooling, 1×1 convolution, batch norm, ReLU where it has one."""
    found = []
    for regressor, name in zip(term.regressors, term.names, strict=True):
        target = step.teachers.hints[name]
        made = resized_by_loops(step.student.features[term.student_stage], *target.shape[2:])
        made = normalised_by_loops(convolved_by_loops(made, regressor.project), regressor.norm)
        ends_in_relu = term.activation == "relu" or min(target.flatten().tolist()) >= 0
        found.append(made.clamp_min(0) if ends_in_relu else made)
    return found


def resized_by_loops(maps, H, W):
    """Return maps whose every position is the mean of the old ones that it covers any part of."""
    rows, columns = (covered(*sizes) for sizes in ((maps.shape[2], H), (maps.shape[3], W)))
    means = [maps[:, :, ys][:, :, :, xs].mean(dim=(2, 3)) for ys in rows for xs in columns]
    return torch.stack(means, dim=2).unflatten(2, (H, W))


def covered(old, new):
    return [
        [n for n in range(old) if n * new < (i + 1) * old and (n + 1) * new > i * old] for i in range(new)
    ]


def convolved_by_loops(maps, convolution):
    """Return the channels' weighted sum and the bias at every position of every sample."""
    B, _, H, W = maps.shape
    kernel = convolution.weight[:, :, 0, 0]
    columns = [
        kernel @ maps[b, :, y, x] + convolution.bias for b in range(B) for y in range(H) for x in range(W)
    ]
    return torch.stack(columns).unflatten(0, (B, H, W)).permute(0, 3, 1, 2)


def normalised_by_loops(maps, norm):
    """Normalise each channel by its mean and variance in the batch, in evaluation by the running ones."""
    channels = []
    for c in range(maps.shape[1]):
        values = maps[:, c]
        mean, variance = norm.running_mean[c], norm.running_var[c]
        if norm.training:
            mean = values.sum() / values.numel()
            variance = (values - mean).square().sum() / values.numel()
        channels.append(norm.weight[c] * (values - mean) / (variance + norm.eps).sqrt() + norm.bias[c])
    return torch.stack(channels, dim=1)


@pytest.mark.parametrize("activation", ["as_teacher", "relu"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("side", [1, 3, 4, 8])
def test_a_map_of_any_size_is_resized_convolved_normalised_and_activated(side, training, activation):
    term, step = built(
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
    term, step = built(FeatureRegression, B=B, teachers=((5, 1, 1), (6, 1, 1)), dtype=torch.float64)
    term.train(training)
    torch.testing.assert_close(list(term.regressed(step)), regressed_by_loops(term, step))
    term(step).backward()
    assert torch.isfinite(step.student.features["layer3"].grad).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_is_activated_where_the_teachers_is_and_as_published_every_map(kind):
    term, step = built(kind)
    first, second = term.regressed(step)
    assert first.min() == 0
    assert second.min() < 0
    term, step = built(kind, activation="relu")
    assert all(made.min() == 0 for made in term.regressed(step))


def test_an_activated_map_has_the_value_and_gradient_of_a_relu():
    made = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for like, expected in ((torch.rand(6, 3, 2, 2), F.relu(made)), (torch.rand(6, 3, 2, 2) - 0.9, made * 1)):
        got = relu_like(made, like)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(*(torch.autograd.grad(v.square().sum(), made)[0] for v in (got, expected)))


def test_an_activation_of_nan_is_nan():
    assert relu_like(torch.tensor([[[[torch.nan]]]]), torch.ones(1, 1, 1, 1)).isnan().all()
