"""Residual networks of the CIFAR experiments: three stages of basic blocks, depth 6n+2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from amtml_pl.errors import NETWORK, UserError


class CifarResNet(nn.Module):
    """Residual network for small images (He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385).

    Shortcuts that change shape are 1×1 convolutions with batch norm (option B), as in RepDistiller
    (https://github.com/HobbitLong/RepDistiller) and the AMTML code, or parameter-free (option A), as in the
    original. Parameter names are RepDistiller's, so its checkpoints load.

    Args:
        depth: layers with weights, 6n+2: 8, 14, 20, 32, 44, 56, 110, ...
        num_classes: K.
        widths: channels of the stem and of the three stages; ``(32, 64, 128, 256)`` is the "x4" family,
            ``(8, 8, 16, 32)`` the thin student of the AMTML code.
        shortcut: ``convolution`` (option B) or ``pad`` (option A: every second pixel, and channels of zeros).
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        widths: Sequence[int] = (16, 16, 32, 64),
        shortcut: Literal["convolution", "pad"] = "convolution",
    ) -> None:
        super().__init__()
        blocks = blocks_per_stage("CifarResNet", depth, remainder=2)
        if len(widths) != 4 or min(widths) < 1:
            raise UserError(
                f"CifarResNet has wrong widths (got {list(widths)}, expected four positive numbers).",
                fix=f"set 'network.widths=[16,16,32,64]' of {NETWORK}",
            )
        if shortcut == "pad" and list(widths) != sorted(widths):
            raise UserError(
                f"CifarResNet cannot pad to fewer channels (got widths {list(widths)}, expected ascending "
                "widths for shortcut=pad).",
                fix=f"set network.shortcut=convolution of {NETWORK}",
            )
        stem, *stages = widths
        self.conv1 = nn.Conv2d(3, stem, kernel_size=3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        pad = shortcut == "pad"
        self.layer1 = residual_stage(stem, stages[0], blocks, stride=1, pad=pad)
        self.layer2 = residual_stage(stages[0], stages[1], blocks, stride=2, pad=pad)
        self.layer3 = residual_stage(stages[1], stages[2], blocks, stride=2, pad=pad)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(stages[2], num_classes)
        initialise_convolutions(self)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Return logits (B, K) of normalised images of any size from 4×4 up."""
        stem = self.relu(self.bn1(self.conv1(images)))
        last = self.layer3(self.layer2(self.layer1(stem)))
        logits: Tensor = self.fc(self.avgpool(last).flatten(1))
        return logits


def residual_stage(
    in_channels: int, channels: int, blocks: int, stride: int, *, pad: bool = False
) -> nn.Sequential:
    """Return basic blocks of one width; the first changes width and size."""
    shortcut: nn.Module | None = None
    if pad and (stride != 1 or in_channels != channels):
        shortcut = PadShortcut(channels - in_channels, stride)
    elif stride != 1 or in_channels != channels:
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(channels),
        )
    first = BasicBlock(in_channels, channels, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(channels, channels) for _ in range(blocks - 1)))


class PadShortcut(nn.Module):
    """Subsample a map, and add channels of zeros, half of them before its own."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.before, self.after, self.stride = channels // 2, channels - channels // 2, stride

    def forward(self, features: Float[Tensor, "B C1 H1 W1"]) -> Float[Tensor, "B C H W"]:
        """Return the map (B, C, H, W) with every ``stride``-th pixel."""
        return F.pad(features[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))


def initialise_convolutions(network: nn.Module) -> None:
    """Draw every convolution's weights from N(0, 2 / fan_out) and zero its bias."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def blocks_per_stage(network: str, depth: int, remainder: int) -> int:
    """Return the n of ``depth = 6n + remainder``; a UserError names the nearest depths.

    Args:
        network: its name, for the message.
        depth: layers with weights.
        remainder: layers outside the blocks of two convolutions, as the architecture counts them.
    """
    blocks, rest = divmod(depth - remainder, 6)
    if rest == 0 and blocks >= 1:
        return blocks
    below = 6 * max(blocks, 1) + remainder
    nearest = [below] if depth < below else [below, below + 6]
    raise UserError(
        f"{network} has a wrong depth (got {depth}, expected 6n+{remainder} with n ≥ 1, "
        f"such as {' or '.join(map(str, nearest))}).",
        fix=f"set network.depth={nearest[0]} of {NETWORK}",
    )
