"""The weights of an epoch, and the sentences that name a collapse."""

import math
import re

import pytest
import torch

from amtml_pl.distill.metrics import EpochMeans, collapse_of, weight_statistics

pytestmark = pytest.mark.numbers


def means_of(*batches, names=("a", "b", "c")):
    means = EpochMeans()
    for weights in batches:
        means.add(weight_statistics(names, weights), len(weights))
    return means.take()


def test_batches_of_different_size_count_by_their_samples():
    first, second = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 0.5, 0.5]]).repeat(3, 1)
    expected = {"weight/a": 0.25, "weight/b": 0.375, "weight/c": 0.375, "weight_above_0.95": 0.25}
    assert means_of(first, second) == pytest.approx({**expected, "weight_entropy": 0.75 * math.log(2)})


@pytest.mark.parametrize(
    ("weights", "kind", "sentence"),
    [
        (torch.randn(64, 3, generator=torch.Generator().manual_seed(0)).softmax(1), None, "no longer"),
        (torch.tensor([[0.01, 0.98, 0.01]]).repeat(10, 1), "one-hot",
         "one teacher per sample: 100% of the samples .*mean weight is 0.98, of teacher b"),
        (torch.full((5, 3), 1 / 3), "uniform", "collapsed to uniform averaging: every weight is 1/3"),
        (torch.ones(4, 1), None, "no longer collapsed"),
    ],
    ids=["different", "one-hot", "equal", "one teacher"],
)  # fmt: skip
def test_a_collapse_is_named(weights, kind, sentence):
    found, text = collapse_of(means_of(weights, names="abc"[: weights.shape[1]]))
    assert found == kind
    assert re.search(sentence, text)
