"""Wide residual networks: three stages of pre-activation blocks, depth 6n+4."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import NETWORK, UserError
from amtml_pl.models.cifar_resnet import blocks_per_stage, initialise_convolutions


class WideResNet(nn.Module):
    """WRN-``depth``-``widen_factor`` (Zagoruyko & Komodakis 2016, https://arxiv.org/abs/1605.07146).

    Batch norm and ReLU come before each convolution, and once more before the pooling, so ``layer1`` to
    ``layer3`` are sums without an activation. A shortcut that changes shape is a 1×1 convolution of the
    activated input.

    Args:
        depth: 6n+4: 10, 16, 22, 28, 40, ...
        widen_factor: multiplier of the stage widths 16, 32 and 64; the stem keeps 16 channels.
        num_classes: K.
        dropout: probability in [0, 1) of dropping a value between the two convolutions of a block.
    """

    def __init__(self, depth: int, widen_factor: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        blocks = blocks_per_stage("WideResNet", depth, remainder=4)
        if widen_factor < 1:
            problem = f"WideResNet has a wrong widen_factor (got {widen_factor}, expected 1 or more)."
            raise UserError(problem, fix=f"set network.widen_factor=2 of {NETWORK}")
        if not 0 <= dropout < 1:
            problem = f"WideResNet has a wrong dropout (got {dropout}, expected at least 0 and below 1)."
            raise UserError(problem, fix=f"set network.dropout=0.3 of {NETWORK}")
        widths = [16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        self.conv1 = nn.Conv2d(3, 16, kernel_size=3, padding=1, bias=False)
        self.layer1 = wide_stage(16, widths[0], blocks, stride=1, dropout=dropout)
        self.layer2 = wide_stage(widths[0], widths[1], blocks, stride=2, dropout=dropout)
        self.layer3 = wide_stage(widths[1], widths[2], blocks, stride=2, dropout=dropout)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Return logits (B, K) of normalised images of any size from 4×4 up."""
        last = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn1(last))).flatten(1))
        return logits


def wide_stage(in_channels: int, channels: int, blocks: int, stride: int, dropout: float) -> nn.Sequential:
    """Return pre-activation blocks of one width; the first changes width and size."""
    first = PreActivationBlock(in_channels, channels, stride, dropout)
    others = (PreActivationBlock(channels, channels, 1, dropout) for _ in range(blocks - 1))
    return nn.Sequential(first, *others)


class PreActivationBlock(nn.Module):
    """Twice batch norm, ReLU and a 3×3 convolution, beside a shortcut (arXiv:1603.05027)."""

    def __init__(self, in_channels: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(in_channels, channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, inputs: Float[Tensor, "B C_in H_in W_in"]) -> Float[Tensor, "B C H W"]:
        """Return the block's output (B, C, H, W), not activated."""
        activated = self.relu(self.bn1(inputs))
        shortcut = inputs if self.shortcut is None else self.shortcut(activated)
        hidden = self.dropout(self.relu(self.bn2(self.conv1(activated))))
        total: Tensor = shortcut + self.conv2(hidden)
        return total
