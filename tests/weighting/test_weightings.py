"""Every weighting: rows sum to 1, teachers are interchangeable, gradients go where they should."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.distill.released.weighting import ReleasedWeighting
from amtml_pl.types import TensorShapes
from amtml_pl.weighting.adaptive import AdaptiveWeighting
from amtml_pl.weighting.aekd import AekdWeighting
from amtml_pl.weighting.confidence import ConfidenceWeighting
from amtml_pl.weighting.entropy import EntropyWeighting
from amtml_pl.weighting.uniform import UniformWeighting
from steps import make_step

pytestmark = pytest.mark.numbers

SCHEMES = [UniformWeighting(), AdaptiveWeighting("last"), ReleasedWeighting("last")]


def weigh(scheme, B=6, M=3, D=8):
    step = make_step(B, M, taps={"last": (D, 4, 4)})
    torch.manual_seed(0)
    scheme.build(TensorShapes(classes=5, teachers=step.teachers.names, student={"last": (D, 4, 4)}))
    return step, scheme(step.student, step.teachers, step.labels)


@pytest.mark.parametrize("scheme", SCHEMES)
@given(B=st.integers(1, 9), M=st.integers(1, 8))
@settings(max_examples=15, deadline=None)
def test_rows_sum_to_one_whatever_the_batch_and_the_number_of_teachers(scheme, B, M):
    _, weights = weigh(scheme, B, M)
    assert weights.shape == (B, M)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(B))


@pytest.mark.parametrize("scheme", [*SCHEMES, EntropyWeighting(), ConfidenceWeighting(), AekdWeighting(4.0)])
def test_a_sample_weighs_the_teachers_alike_alone_unless_the_scheme_says_that_it_weighs_batches(scheme):
    step, weights = weigh(scheme)

    def alone(tensor):
        return tensor[2:3]

    found = scheme(step.student.map(alone), step.teachers.map(alone), step.labels[2:3])
    assert torch.allclose(found, weights[2:3], atol=1e-6) != scheme.weighs_batches


def test_the_adapter_learns_and_its_gradient_stops_at_the_students_features():
    scheme = AdaptiveWeighting("last")
    step, weights = weigh(scheme)
    weights[:, 0].sum().backward()
    assert step.student.features["last"].grad is None
    for factor in (scheme.theta, scheme.mixing):
        assert factor.grad.abs().sum() > 0


def test_the_adapter_does_not_start_collapsed():
    _, weights = weigh(AdaptiveWeighting("last"), B=64, D=64)
    assert (weights.amax(dim=1) > 0.95).float().mean() < 0.5
    assert weights.std() > 0.01
