"""Average pooling of feature maps to a given size, deterministic on every device."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def pool(features: Float[Tensor, "B C H1 W1"], height: int, width: int) -> Float[Tensor, "B C H W"]:
    """Average-pool feature maps to a given height and width, as two matrix products.

    The backward of ``adaptive_avg_pool2d`` has no deterministic implementation on CUDA, and a run would
    stop there; these products have one.
    """
    if features.shape[2:] == (height, width):
        return features
    rows, columns = averaging(features.shape[2], height), averaging(features.shape[3], width)
    return rows.to(features) @ features @ columns.to(features).T


def averaging(inputs: int, outputs: int) -> Float[Tensor, "outputs inputs"]:
    """Return the matrix that averages ``inputs`` numbers to ``outputs`` numbers.

    Row i averages the inputs from ``floor(i n / m)`` up to ``ceil((i + 1) n / m)``.
    """
    matrix = torch.zeros(outputs, inputs, dtype=torch.float64)
    for i in range(outputs):
        start, end = i * inputs // outputs, -(-(i + 1) * inputs // outputs)
        matrix[i, start:end] = 1 / (end - start)
    return matrix
