"""Measure how a weighting's weights of the teachers depend on the image and its class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from amtml_pl.runs.evaluation import Adaptivity, WeightSpread

DIGITS = 5  # a float32 weight has hardly more; differences below are rounding, not adaptation
QUANTILES = (0.1, 0.5, 0.9)


def adaptivity(
    weights: Float[Tensor, "N M"],
    labels: Int64[Tensor, " N"],
    right: Bool[Tensor, "N M"],
    teachers: Sequence[str],
    classes: Sequence[str],
) -> Adaptivity:
    """Measure the weights of M teachers for N images.

    Args:
        weights: in [0, 1], rows sum to 1.
        labels: in [0, K).
        right: whether a teacher predicts the label of an image.
        teachers: the M names.
        classes: the K names.
    """
    weights = weights.double()
    mean = weights.mean(dim=0)
    variance = (weights - mean).square().mean()
    deviation = rounded(variance.sqrt())
    disputed = right.any(dim=1) & ~right.all(dim=1)
    sums = ((each * right).sum(dim=1)[disputed].mean() for each in (weights, mean))
    of_right, of_right_constant = (rounded(each) if disputed.any() else None for each in sums)
    return Adaptivity(
        entropy=max(0.0, round(float(torch.special.entr(weights).sum(dim=1).mean()), DIGITS)),
        deviation=deviation,
        between_classes=rounded(between_classes(weights, labels) / variance) if deviation else None,
        disputed=rounded(disputed.double().mean()),
        right=of_right,
        right_constant=of_right_constant,
        teachers=spreads(weights, teachers),
        classes={
            name: spreads(weights[labels == k], teachers)
            for k, name in enumerate(classes)
            if (labels == k).any()
        },
    )


def between_classes(weights: Float64[Tensor, "N M"], labels: Int64[Tensor, " N"]) -> Float64[Tensor, ""]:
    """Return the variance of the class means around the mean, over images and teachers."""
    images = torch.bincount(labels)
    sums = weights.new_zeros(len(images), weights.shape[1]).index_add_(0, labels, weights)
    return ((sums / images[:, None])[labels] - weights.mean(dim=0)).square().mean()


def spreads(weights: Float64[Tensor, "N M"], teachers: Sequence[str]) -> dict[str, WeightSpread]:
    """Return the mean and the quantiles of each teacher's weight."""
    values = [weights.mean(dim=0), *torch.quantile(weights, weights.new_tensor(QUANTILES), dim=0)]
    names = ("mean", "p10", "p50", "p90")
    return {
        teacher: WeightSpread(**dict(zip(names, map(rounded, own), strict=True)))
        for teacher, own in zip(teachers, zip(*values, strict=True), strict=True)
    }


def rounded(value: Float64[Tensor, ""]) -> float:
    """Return a share without the digits that rounding may change."""
    return round(min(1.0, max(0.0, float(value))), DIGITS)
