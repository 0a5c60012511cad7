"""Memory layout, device and eager execution of networks."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# torch 2.14.1's CPU backward of a strided 1×1 convolution corrupts memory in channels-last layout, for some
# batch sizes, when it has fewer input channels than a vector register holds; see docs/measurements/speed.md.
SAFE_INPUT_CHANNELS = 16


def set_layout(network: nn.Module, *, channels_last: bool, compiled: bool) -> None:
    """Set a network's memory layout in place; its ``state_dict`` keeps its names.

    Convolutions whose CPU backward corrupts memory are computed another way, see `SubsampledConv2d`.

    Args:
        network: the bare one, inside its taps.
        channels_last: True to store weights and activations with the channels last.
        compiled: True if the network will be compiled; the compiler takes channels-last layouts by itself.
    """
    if channels_last:
        network.to(memory_format=torch.channels_last)
    if channels_last or compiled:
        for module in network.modules():
            if is_unsafe(module) and is_replaceable(module):
                module.__class__ = SubsampledConv2d


def set_execution(network: nn.Module, *, channels_last: bool, compiled: bool) -> None:
    """Set a teacher's memory layout, and compile its forward, in place."""
    set_layout(network, channels_last=channels_last, compiled=compiled)
    if compiled:
        network.compile()


class SubsampledConv2d(nn.Conv2d):
    """Strided 1×1 convolution that takes every n-th pixel first, then convolves without a stride."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in nn.Conv2d
        """Return what `nn.Conv2d` returns."""
        rows, columns = self.stride
        return F.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias)


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
    """Return names of convolutions that corrupt memory and that `set_layout` cannot replace."""
    found = network.named_modules()
    return [name for name, module in found if is_unsafe(module) and not is_replaceable(module)]


def is_unsafe(module: nn.Module) -> bool:
    """Return True for a convolution whose CPU backward may corrupt memory in channels-last layout."""
    return (
        isinstance(module, nn.Conv2d)
        and not isinstance(module, SubsampledConv2d)
        and module.kernel_size == (1, 1)
        and max(int(step) for step in module.stride) > 1
        and module.in_channels < SAFE_INPUT_CHANNELS
    )


def is_replaceable(module: nn.Module) -> bool:
    """Return True for a convolution that `SubsampledConv2d` computes."""
    return (
        type(module) is nn.Conv2d
        and module.padding in ((0, 0), "valid")
        and module.padding_mode == "zeros"
        and module.groups == 1
    )
