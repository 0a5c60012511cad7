"""Average pooling of feature maps to a given size, deterministic on every device."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def pool(features: Float[Tensor, "B C H1 W1"], height: int, width: int) -> Float[Tensor, "B C H W"]:
    """Average-pool feature maps to a given height and width, as two matrix products.

    Unlike these products, ``adaptive_avg_pool2d`` has no deterministic backward on CUDA.
    """
    if features.shape[2:] == (height, width):
        return features
    rows, columns = averaging_matrix(features.shape[2], height), averaging_matrix(features.shape[3], width)
    return rows.to(features) @ features @ columns.to(features).T


def pool_to_same_size(
    first: Float[Tensor, "B C1 H1 W1"], second: Float[Tensor, "B C2 H2 W2"]
) -> tuple[Float[Tensor, "B C1 H W"], Float[Tensor, "B C2 H W"]]:
    """Average-pool two maps to the smaller height and the smaller width of both."""
    height, width = (min(first.shape[axis], second.shape[axis]) for axis in (2, 3))
    return pool(first, height, width), pool(second, height, width)


def averaging_matrix(inputs: int, outputs: int) -> Float[Tensor, "outputs inputs"]:
    """Return the matrix whose row i averages the i-th of `spans` of some inputs."""
    matrix = torch.zeros(outputs, inputs, dtype=torch.float64)
    for i, span in enumerate(spans(inputs, outputs)):
        matrix[i, span] = 1 / (span.stop - span.start)
    return matrix


def spans(inputs: int, outputs: int) -> list[slice]:
    """Return equal parts of some positions; neighbours share the position at a boundary within it.

    Part i goes from ``floor(i n / m)`` up to ``ceil((i + 1) n / m)``, for n inputs and m outputs.
    """
    return [slice(i * inputs // outputs, -(-(i + 1) * inputs // outputs)) for i in range(outputs)]
