"""Arithmetic that gives the same bits on every device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def quotient(numbers: Tensor, divisor: int) -> Tensor:
    """Return the correctly rounded quotients; those of integers in float32."""
    # By a tensor: CUDA would multiply by the rounded reciprocal of a plain number.
    by = torch.full((), float(divisor), device=numbers.device)
    return numbers / by if numbers.is_floating_point() else numbers.float().div_(by)  # one copy, not two


def sent(parameters: np.ndarray, to: torch.device) -> Tensor:
    """Return parameters, computed on the CPU, on a device; nothing waits for it."""
    return torch.from_numpy(parameters).to(to, non_blocking=True)
