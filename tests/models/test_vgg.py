"""CifarVgg is RepDistiller's VGG, by parameters and shapes, at any width."""

import pytest
import torch
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.models.vgg import CifarVgg

PUBLISHED_LAYERS = {8: "11111", 11: "11222", 13: "22222", 16: "22333", 19: "22444"}


def parameters_by_formula(depth, width, K):
    total, c_in = 0, 3
    for base, convolutions in zip((64, 128, 256, 512, 512), map(int, PUBLISHED_LAYERS[depth]), strict=True):
        for _ in range(convolutions):
            c = int(base * width)
            total, c_in = total + 9 * c_in * c + 3 * c, c
    return total + c_in * K + K


@pytest.mark.parametrize(
    ("depth", "published_millions"), [(8, 3.97), (11, 9.28), (13, 9.46), (16, 14.77), (19, 20.09)]
)
@pytest.mark.parametrize("width", [1, 0.5, 0.25])
def test_parameters_are_those_of_the_architecture(depth, published_millions, width):
    with torch.device("meta"):
        network = CifarVgg(depth, 100, width)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == parameters_by_formula(depth, width, 100)
    assert width < 1 or round(count / 1e6, 2) == published_millions


@pytest.mark.parametrize(("size", "sides"), [(32, [32, 16, 8, 4, 4]), (64, [64, 32, 16, 8, 4])])
def test_the_last_stage_sees_four_by_four_pixels_of_small_and_larger_images(size, sides):
    network = CifarVgg(8, 7, 0.125).eval()
    seen = []
    for stage in range(1, 6):
        network.get_submodule(f"stage{stage}").register_forward_hook(
            lambda *called: seen.append(called[2].shape)
        )
    assert network(torch.rand(1, 3, size, size)).shape == (1, 7)
    assert [shape[-1] for shape in seen] == sides
    assert [shape[1] for shape in seen] == [8, 16, 32, 64, 64]


def test_every_convolution_has_a_batch_norm_and_an_activation():
    kinds = [type(m) for m in CifarVgg(16, 10, 0.125).modules()]
    assert [kinds.count(kind) for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)] == [13] * 3


@pytest.mark.parametrize(
    ("depth", "width", "message"),
    [
        (9, 1.0, r"depth=9; expected one of \[8, 11, 13, 16, 19\]"),
        (8, 0.001, "width=0.001, which gives the stages"),
        (8, -1.0, "width=-1.0, which gives the stages"),
    ],
)
def test_impossible_arguments_are_refused(depth, width, message):
    with pytest.raises(UserError, match=message):
        CifarVgg(depth, 10, width)
