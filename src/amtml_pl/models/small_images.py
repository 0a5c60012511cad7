"""Adaptation of networks made for 224×224 pixels to images of 32×32 and 64×64."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.models.taps import find_module, suggest_paths

LARGEST_SMALL_IMAGE = 64  # pixels


def adapt_stem(
    network: nn.Module,
    *,
    image_size: int | None = None,
    stride_one: Sequence[str] = (),
    kernel_3x3: Sequence[str] = (),
    skip: Sequence[str] = (),
) -> nn.Module:
    """Remove early downsampling from a torchvision or timm network, in place.

    Modules are named by dotted path. A convolution keeps its type, groups and bias. A network for images
    larger than 64 pixels is returned as it is, with pretrained weights of its stem if it has them.

    Args:
        network: the network to change.
        image_size: height and width of its images in pixels; None: they are small.
        stride_one: convolutions that keep their kernel and no longer downsample.
        kernel_3x3: convolutions that become 3×3 with stride 1 and padding 1; the weights of another kernel
            size are drawn anew from N(0, 2 / fan_out), those of a 3×3 kernel are kept.
        skip: modules that are replaced by the identity, usually the max-pool of the stem.

    Raises:
        UserError: if a path names no module, or no two-dimensional convolution where one is needed.
    """
    if image_size is not None and image_size > LARGEST_SMALL_IMAGE:
        return network
    for path in stride_one:
        find_convolution(network, path).stride = (1, 1)
    for path in kernel_3x3:
        make_3x3(find_convolution(network, path))
    for path in skip:
        find_module(network, path)
        network.set_submodule(path, nn.Identity())
    return network


def make_3x3(convolution: nn.Conv2d) -> None:
    """Make a convolution 3×3 with stride 1, in place, so that its type stays."""
    old = convolution.weight
    convolution.kernel_size, convolution.stride = (3, 3), (1, 1)
    convolution.padding, convolution.dilation = (1, 1), (1, 1)
    if old.shape[2:] != (3, 3):
        convolution.weight = nn.Parameter(old.new_empty(*old.shape[:2], 3, 3))
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


def find_convolution(network: nn.Module, path: str) -> nn.Conv2d:
    """Return the convolution at a dotted path; raise a UserError for anything else."""
    module = find_module(network, path)
    if isinstance(module, nn.Conv2d):
        return module
    convolutions = [name for name, other in network.named_modules() if isinstance(other, nn.Conv2d)]
    raise UserError(
        f"The module {path!r} of {type(network).__name__} is not a convolution "
        f"(got {type(module).__name__}, expected Conv2d). "
        f"{suggest_paths(path, convolutions)}",
        fix="name a convolution in kernel_3x3 of adapt_stem, or move the name to skip to remove the module",
    )
