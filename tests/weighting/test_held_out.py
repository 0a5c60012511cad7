"""Weights from held-out images."""

import pytest
import torch
import torch.nn.functional as F

from amtml_pl.types import TensorShapes
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


@pytest.mark.parametrize("noise", [0.003, 0.03, 3.0])
def test_held_out_weights_of_teachers_that_are_nearly_alike_are_exact(noise):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (5000,), generator=generator)
    alike = 2 * torch.randn(5000, 1, 5, generator=generator) + 3 * F.one_hot(labels, 5)[:, None]
    logits = alike.double() + noise * torch.randn(5000, 2, 5, generator=generator)
    p = logits.softmax(dim=2)[torch.arange(5000), :, labels]
    low, high = 0.0, 1.0  # the derivative by the first weight falls: bisection
    for _ in range(60):
        w = (low + high) / 2
        slope = ((p[:, 0] - p[:, 1]) / (w * p[:, 0] + (1 - w) * p[:, 1])).sum() + 1 / w - 1 / (1 - w)
        low, high = (w, high) if slope > 0 else (low, w)
    expected = torch.tensor([low, 1 - low], dtype=torch.float64)
    torch.testing.assert_close(held_out_weights(logits, labels), expected, rtol=1e-8, atol=0)


def test_teachers_that_are_sure_of_wrong_labels_have_small_weights_and_unknown_labels_do_not_count():
    labels = torch.arange(60) % 3
    logits = torch.zeros(60, 2, 4, dtype=torch.float64)
    logits[:, 0].scatter_(1, labels[:, None], 1e4)
    logits[:, 1, 3] = 1e4  # never right
    expected = torch.tensor([61 / 62, 1 / 62], dtype=torch.float64)
    torch.testing.assert_close(held_out_weights(logits, labels), expected)
    unknown = torch.full((9, 2, 4), -torch.inf, dtype=torch.float64)
    unknown[:, :, 3] = 0.0
    more = torch.cat([logits, unknown]), torch.cat([labels, torch.zeros(9, dtype=torch.long)])
    torch.testing.assert_close(held_out_weights(*more), expected)


def test_held_out_weights_are_checkpointed():
    scheme = HeldOutWeighting()
    scheme.build(TensorShapes(classes=4, teachers=("t0", "t1", "t2")))
    scheme.fit_to_held_out(*held_out())
    assert "shares" in scheme.state_dict()
    expected = held_out_weights(*held_out()).expand(6, -1)
    torch.testing.assert_close(weigh(scheme, make_step(K=4)), expected)
