"""Weights from held-out images."""

import pytest
import torch

from amtml_pl.types import TensorShapes
from amtml_pl.weighting.adaptive import AdaptiveWeighting
from amtml_pl.weighting.held_out import HeldOutWeighting, held_out_weights
from steps import make_step
from weighting.schemes import held_out, weigh


def test_weights_from_held_out_images_make_their_labels_likeliest():
    logits, labels = held_out()
    weights = held_out_weights(logits, labels)
    assert weights[0] > weights[1] > weights[2] > 0
    assert float(weights.sum()) == pytest.approx(1)

    def likelihood(w):
        return (w[None, :, None] * logits.softmax(2)).sum(1).gather(1, labels[:, None]).log().sum()

    for other in torch.rand(50, 3, generator=torch.Generator().manual_seed(1)):
        best = likelihood(other / other.sum())
        assert likelihood(weights) > best - 1  # the pseudo-observations cost a little


def test_held_out_weights_are_checkpointed_and_are_the_prior_that_an_adapter_starts_from():
    shapes = TensorShapes(classes=4, teachers=("t0", "t1", "t2"), student={"last": (8, 4, 4)})
    step = make_step(K=4, taps={"last": (8, 4, 4)})
    alone, prior = HeldOutWeighting(), AdaptiveWeighting("last", "held_out", lr=None)
    for scheme in (alone, prior):
        scheme.build(shapes)
        scheme.fit_to_held_out(*held_out())
    assert "shares" in alone.state_dict()
    torch.nn.init.zeros_(prior.theta)
    expected = held_out_weights(*held_out()).expand(6, -1)
    for scheme in (alone, prior):
        torch.testing.assert_close(weigh(scheme, step), expected)
    assert AdaptiveWeighting("last", "uniform", lr=None).prior is None
