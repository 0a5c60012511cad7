"""The weights of an epoch, and the sentences that name a collapse."""

import math

import pytest
import torch

from amtml_pl.distill.metrics import WeightStatistics

pytestmark = pytest.mark.numbers


def summarise(*batches, names=("a", "b", "c")):
    statistics = WeightStatistics(names)
    for weights in batches:
        statistics.update(weights)
    return statistics.summary()


def test_batches_of_different_size_count_by_their_samples():
    first, second = torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 0.5, 0.5]]).repeat(3, 1)
    summary = summarise(first, second)
    assert summary.mean == pytest.approx({"a": 0.25, "b": 0.375, "c": 0.375})
    assert summary.entropy == pytest.approx(0.75 * math.log(2))
    assert summary.above_95 == 0.25


def test_weights_that_differ_between_samples_are_no_collapse():
    weights = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    assert summarise(weights).collapse is None


def test_one_teacher_for_all_samples_is_named():
    weights = torch.tensor([[0.01, 0.98, 0.01]]).repeat(10, 1)
    assert summarise(weights).collapse == "one-hot"
    assert "collapsed to one teacher per sample: 100% of the samples" in summarise(weights).describe()
    assert "most often b (mean weight 0.98)" in summarise(weights).describe()


def test_equal_weights_are_named():
    summary = summarise(torch.full((5, 3), 1 / 3))
    assert summary.collapse == "uniform"
    assert "collapsed to plain averaging: every weight is 1/3" in summary.describe()


def test_a_single_teacher_cannot_collapse():
    assert summarise(torch.ones(4, 1), names=("a",)).collapse is None
