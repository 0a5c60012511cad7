"""VGG for small images: five stages of 3×3 convolutions, global pooling, one linear layer."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from amtml_pl.errors import NETWORK, UserError
from amtml_pl.models.cifar_resnet import initialise_convolutions

# Convolutions of each stage, by the depth that names the network (it counts three linear layers).
CONVOLUTIONS = {
    8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)
}  # fmt: skip


class CifarVgg(nn.Module):
    """VGG with batch norm, cut for small images.

    Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556.
    As in RepDistiller (https://github.com/HobbitLong/RepDistiller): one linear layer after global pooling
    instead of three, and the last max-pool only where more than 4×4 pixels are left, so that ``stage5`` is
    4×4 for images of 32 as of 64 pixels. Convolutions keep their bias, idle before a batch norm, so that
    parameter counts are the published ones.

    Args:
        depth: 8, 11, 13, 16 or 19.
        num_classes: K.
        width: multiplier of the stage widths 64, 128, 256, 512 and 512.
    """

    def __init__(self, depth: int, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        if depth not in CONVOLUTIONS:
            raise UserError(
                f"CifarVgg has a wrong depth (got {depth}, expected one of {list(CONVOLUTIONS)}).",
                fix=f"set network.depth=8 of {NETWORK}",
            )
        widths = [round(channels * width) for channels in (64, 128, 256, 512, 512)]
        if min(widths) < 1:
            raise UserError(
                f"CifarVgg has stages without channels (got width={width}, which gives {widths} channels).",
                fix=f"set network.width=0.25 of {NETWORK}",
            )
        first, second, third, fourth, fifth = CONVOLUTIONS[depth]
        self.pool = nn.MaxPool2d(2)
        self.stage1 = vgg_stage(3, widths[0], first)
        self.stage2 = vgg_stage(widths[0], widths[1], second)
        self.stage3 = vgg_stage(widths[1], widths[2], third)
        self.stage4 = vgg_stage(widths[2], widths[3], fourth)
        self.shrink = HalveAboveFour()
        self.stage5 = vgg_stage(widths[3], widths[4], fifth)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[4], num_classes)
        initialise_convolutions(self)
        nn.init.normal_(self.fc.weight, 0.0, 0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Return logits (B, K) of normalised images of any size from 8×8 up."""
        fine = self.stage2(self.pool(self.stage1(images)))
        coarse = self.stage4(self.pool(self.stage3(self.pool(fine))))
        logits: Tensor = self.fc(self.avgpool(self.stage5(self.shrink(coarse))).flatten(1))
        return logits


class FullVgg(nn.Module):
    """VGG with batch norm, all five max-pools and three linear layers of 512 units.

    Parameter names are those of https://github.com/chenyaofo/pytorch-cifar-models, so its checkpoints load.

    Args:
        depth: 8, 11, 13, 16 or 19.
        num_classes: K.
    """

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        if depth not in CONVOLUTIONS:
            raise UserError(
                f"FullVgg has a wrong depth (got {depth}, expected one of {list(CONVOLUTIONS)}).",
                fix=f"set network.depth=11 of {NETWORK}",
            )
        layers: list[nn.Module] = []
        widths = (3, 64, 128, 256, 512, 512)
        for source, channels, count in zip(widths[:-1], widths[1:], CONVOLUTIONS[depth], strict=True):
            layers += [*vgg_stage(source, channels, count), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        hidden = [nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Dropout()]
        hidden += [nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Dropout()]
        self.classifier = nn.Sequential(*hidden, nn.Linear(512, num_classes))
        initialise_convolutions(self)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        """Return logits (B, K) of normalised images of any size from 32×32 up."""
        logits: Tensor = self.classifier(self.avgpool(self.features(images)).flatten(1))
        return logits


class HalveAboveFour(nn.Module):
    """Max-pooling of maps larger than 4×4, as a module that can be traced."""

    def forward(self, features: Float[Tensor, "B C H1 W1"]) -> Float[Tensor, "B C H W"]:
        """Return the map at half the size, or unchanged up to 4×4."""
        return F.max_pool2d(features, 2) if min(features.shape[-2:]) > 4 else features


def vgg_stage(in_channels: int, channels: int, convolutions: int) -> nn.Sequential:
    """Return convolutions of one width, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for source in [in_channels] + [channels] * (convolutions - 1):
        layers.append(nn.Conv2d(source, channels, kernel_size=3, padding=1))
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
