"""Whole batch of all processes of a run, assembled from their shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class WholeBatch:
    """Function that assembles the processes' rows in the order of a one-process run.

    The first row is of process 0, the second of process 1, …; shares may differ by a row. Every process gets
    the whole batch and computes the same loss. The gradient of that loss that comes back to a share is
    multiplied by the number of processes, since their gradients are averaged: the average is then the
    gradient of a run of one process.

    Args:
        share: ``(B_rank, ...)``, any of the tensors that will be assembled.
    """

    def __init__(self, share: Tensor) -> None:
        own = torch.tensor([len(share)], device=share.device)
        sizes = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, own)
        self.sizes = torch.cat(sizes).tolist()

    def __call__(self, share: Tensor) -> Tensor:
        """Return the whole batch (B, ...) from this process's share (B_rank, ...)."""
        whole: Tensor = _Whole.apply(share, self.sizes)
        return whole


class _Whole(torch.autograd.Function):
    """Differentiable gathering; see `WholeBatch`."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, sizes: Sequence[int]) -> Tensor:
        padded = share.new_zeros(max(sizes), *share.shape[1:])
        padded[: len(share)] = share
        received = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(received, padded)
        whole = share.new_empty(sum(sizes), *share.shape[1:])
        for rank, size in enumerate(sizes):
            whole[rank :: len(sizes)] = received[rank][:size]
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        world = dist.get_world_size()
        return gradient[dist.get_rank() :: world] * world, None
