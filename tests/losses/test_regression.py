"""What a regressor can give is what its teacher gives: negative values where it has some, none elsewhere."""

import pytest
import torch
import torch.nn.functional as F

from amtml_pl.losses.regression import FeatureRegression, activated
from amtml_pl.losses.regression_aekd import AekdFeatureRegression
from amtml_pl.losses.regression_confidence import ConfidenceFeatureRegression
from amtml_pl.types import OfferedFeatures, TensorShapes
from steps import make_step

KINDS = [FeatureRegression, AekdFeatureRegression, ConfidenceFeatureRegression]


def built(kind, **options):
    """One teacher whose map is activated and one whose map takes both signs, as a wide residual network's."""
    offered = {"t0": OfferedFeatures("layer3"), "t1": OfferedFeatures("layer3")}
    maps = dict.fromkeys(("t0/layer3", "t1/layer3"), (5, 4, 4))
    taps = {"layer3": (3, 4, 4)}
    torch.manual_seed(0)
    term = kind(["layer3"], **options)
    term.build(TensorShapes(4, tuple(offered), taps, maps, offered))
    step = make_step(8, 2, 4, taps=taps, hints=maps)
    step.teachers.hints["t0/layer3"].abs_()
    step.teachers.hints["t1/layer3"].sub_(0.5)
    return term, step


@pytest.mark.parametrize("kind", KINDS)
def test_a_map_is_activated_where_the_teachers_is(kind):
    term, step = built(kind)
    first, second = term.regressed(step)
    assert first.min() == 0
    assert second.min() < 0


@pytest.mark.parametrize("kind", KINDS)
def test_as_published_every_map_is_activated(kind):
    term, step = built(kind, activation="relu")
    assert all(made.min() == 0 for made in term.regressed(step))


def test_an_activated_map_has_the_value_and_gradient_of_a_relu():
    made = torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for like, expected in ((torch.rand(6, 3, 2, 2), F.relu(made)), (torch.rand(6, 3, 2, 2) - 0.9, made * 1)):
        got = activated(made, like)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(*(torch.autograd.grad(v.square().sum(), made)[0] for v in (got, expected)))


def test_what_is_not_a_number_stays_so():
    assert activated(torch.tensor([[[[torch.nan]]]]), torch.ones(1, 1, 1, 1)).isnan().all()
