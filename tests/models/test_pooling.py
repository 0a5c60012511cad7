"""Pooling that torch allows in deterministic mode."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.models.pooling import pool, pool_to_same_size

pytestmark = pytest.mark.numbers


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
@settings(max_examples=40)
def test_pooling_is_torchs_adaptive_average_without_its_undeterministic_backward(h, w, height, width):
    height, width = min(h, height), min(w, width)
    features = torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pooled = pool(features, height, width)
    torch.testing.assert_close(pooled, F.adaptive_avg_pool2d(features, (height, width)))
    graph, seen = [pooled.grad_fn], set()
    while graph:
        node = graph.pop()
        if node is not None:
            seen.add(type(node).__name__)
            graph += [following for following, _ in node.next_functions]
    assert not [name for name in seen if "AdaptiveAvgPool" in name]


def test_maps_of_different_size_meet_at_the_smaller():
    first, second = pool_to_same_size(torch.ones(2, 3, 32, 8), torch.ones(2, 5, 4, 16))
    assert first.shape == (2, 3, 4, 8)
    assert second.shape == (2, 5, 4, 8)
