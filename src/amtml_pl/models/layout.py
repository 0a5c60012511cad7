"""Execution of a network: memory layout and compilation, equal to rounding."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from amtml_pl.errors import UserError

# torch 2.14.1's CPU backward of a strided 1×1 convolution corrupts memory in channels-last layout when it has
# fewer input channels than a vector register holds and the batch is odd; see docs/results.md.
SAFE_INPUT_CHANNELS = 16


def set_execution(
    network: nn.Module, *, channels_last: bool, compiled: bool, trained_on_cpu: bool = False
) -> None:
    """Set a network's memory layout and compilation in place; its ``state_dict`` keeps its names.

    Args:
        network: the bare one, inside its taps.
        channels_last: whether weights and activations are stored with the channels last.
        compiled: whether ``torch.compile`` translates the forward and backward.
        trained_on_cpu: raise a UserError where channels-last would corrupt memory in the CPU's backward.
    """
    if channels_last:
        if trained_on_cpu and (unsafe := unsafe_convolutions(network)):
            raise UserError(
                f"channels_last=true corrupts memory when {type(network).__name__} is trained on a CPU. Some "
                f"strided 1x1 convolutions have too few input channels (got {unsafe[:3]}, expected at least "
                f"{SAFE_INPUT_CHANNELS}).",
                fix="channels_last=false",
            )
        network.to(memory_format=torch.channels_last)
    if compiled:
        network.compile()


def device_for(accelerator: str | None) -> torch.device:
    """Return the device for networks: CUDA where it exists, unless the CPU is wanted."""
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def eager_execution() -> AbstractContextManager[object]:
    """Run networks inside eagerly, even compiled ones."""
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled, and to import it takes seconds
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


@contextmanager
def local_batch_norm(network: nn.Module) -> Iterator[None]:
    """Make batch norm inside use this process's batch alone, with a second derivative.

    For a batch that every process has whole: local statistics are then the synchronised ones.
    """
    synchronised = [module for module in network.modules() if isinstance(module, nn.SyncBatchNorm)]
    for module in synchronised:
        module.forward = partial(_BatchNorm.forward, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in synchronised:
            del module.forward


def unsafe_convolutions(network: nn.Module) -> list[str]:
    """Return names of convolutions whose CPU backward is broken in channels-last layout."""
    return [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(int(step) for step in module.stride) > 1
        and module.in_channels < SAFE_INPUT_CHANNELS
    ]
