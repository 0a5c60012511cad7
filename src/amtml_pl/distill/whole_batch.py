"""Whole batch, gathered from the shares of all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class WholeBatch:
    """Function that gathers the rows of all ranks in the order of a one-process run.

    The first row is of rank 0, the second of rank 1, …; shares may differ by a row. Every rank gets the
    whole batch and computes the same loss. DDP averages gradients, so that of a share is multiplied by the
    world size: the average is the gradient of a run of one process.

    Args:
        share: ``(B_rank, ...)``, any of the tensors that will be gathered.
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
