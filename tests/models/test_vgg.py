"""CifarVgg is RepDistiller's VGG, by parameters and shapes, at any width."""

import pytest
import torch
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.models.vgg import CifarVgg


@pytest.mark.parametrize(
    ("depth", "published_millions"), [(8, 3.97), (11, 9.28), (13, 9.46), (16, 14.77), (19, 20.09)]
)
def test_parameters_are_as_many_as_published(depth, published_millions):
    with torch.device("meta"):
        network = CifarVgg(depth, 100)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 2) == published_millions


@pytest.mark.parametrize(("size", "sides"), [(32, [32, 16, 8, 4, 4]), (64, [64, 32, 16, 8, 4])])
def test_the_last_stage_sees_four_by_four_pixels_of_small_and_larger_images(size, sides):
    network = CifarVgg(8, 7, 0.125).eval()
    seen = []
    for stage in (network.stage1, network.stage2, network.stage3, network.stage4, network.stage5):
        stage.register_forward_hook(lambda *called: seen.append(called[2].shape))
    assert network(torch.rand(1, 3, size, size)).shape == (1, 7)
    assert [shape[-1] for shape in seen] == sides
    assert [shape[1] for shape in seen] == [8, 16, 32, 64, 64]


def test_every_convolution_has_a_batch_norm_and_an_activation():
    kinds = [type(m) for m in CifarVgg(16, 10, 0.125).modules()]
    assert [kinds.count(kind) for kind in (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)] == [13] * 3


@pytest.mark.parametrize(
    ("depth", "width", "message"),
    [(9, 1.0, r"got 9, expected one of \[8, 11, 13, 16, 19\]"), (8, 0.001, "got width=0.001")],
)
def test_impossible_arguments_are_refused(depth, width, message):
    with pytest.raises(UserError, match=message):
        CifarVgg(depth, 10, width)
