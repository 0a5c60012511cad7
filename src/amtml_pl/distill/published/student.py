"""Student of the published notebook: its initial weights, and the effect of its dummy forward."""

from __future__ import annotations

import torch
from torch import nn


def published_student(network: nn.Module) -> nn.Module:
    """Initialise a network as the notebook does, and run one forward of noise.

    Convolutions from N(0, 0.02), batch-norm scales from N(1, 0.02). The classifier keeps its default: the
    notebook's rule for linear layers tests for a lower-case name. The noise, one 128×128 batch in training
    mode to find the pooled size, moves the running statistics of the batch norm once.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
    network.train()
    with torch.no_grad():
        network(torch.randn(2, 3, 128, 128))
    return network
