"""Contexts that change a network's state inside and restore it afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put every module in evaluation mode inside; afterwards restore each module's mode."""
    with modes_restored(network):
        network.eval()
        yield


@contextmanager
def modes_restored(network: nn.Module) -> Iterator[None]:
    """Restore every module's training or evaluation mode afterwards."""
    modes = {module: module.training for module in network.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Treat the network's parameters as constants inside."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def buffers_restored(module: nn.Module) -> Iterator[None]:
    """Restore every buffer's values afterwards, such as running statistics."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    try:
        yield
    finally:
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
