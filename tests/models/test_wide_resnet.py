"""WideResNet is the network of the paper, by parameters, shapes and order of operations."""

import pytest
import torch
import torch.nn.functional as F

from amtml_pl.errors import UserError
from amtml_pl.models.wide_resnet import PreActivationBlock, WideResNet

pytestmark = pytest.mark.numbers


@pytest.mark.parametrize(
    ("depth", "k", "published_millions"),
    [(16, 1, 0.18), (16, 2, 0.7), (40, 1, 0.57), (40, 2, 2.26), (28, 4, 5.87), (28, 10, 36.54)],
)
def test_parameters_are_as_many_as_published(depth, k, published_millions):
    with torch.device("meta"):
        network = WideResNet(depth, k, 100)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 2) == published_millions


@pytest.mark.parametrize("size", [32, 64])
def test_each_stage_after_the_first_halves_the_map(size):
    network = WideResNet(10, 2, 7).eval()
    x = network.conv1(torch.rand(1, 3, size, size))
    for stage, channels, side in ((1, 32, size), (2, 64, size // 2), (3, 128, size // 4)):
        x = network.get_submodule(f"layer{stage}")(x)
        assert x.shape == (1, channels, side, side)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("in_channels", [8, 4])
def test_a_block_is_the_sum_written_out(in_channels):
    block = PreActivationBlock(in_channels, 8, stride=1, dropout=0.0).eval()
    x = torch.randn(2, in_channels, 6, 6)
    activated = F.relu(block.bn1(x))
    hidden = block.conv2(F.relu(block.bn2(block.conv1(activated))))
    expected = hidden + (x if block.shortcut is None else block.shortcut(activated))
    assert (block.shortcut is None) == (in_channels == 8)
    torch.testing.assert_close(block(x), expected)


def test_dropout_acts_in_training_only():
    network = WideResNet(10, 1, 10, dropout=0.5)
    images = torch.rand(2, 3, 16, 16)
    assert not torch.equal(network(images), network(images))
    network.eval()
    assert torch.equal(network(images), network(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 20, "widen_factor": 1}, r"got 20, expected 6n\+4 .*, such as 16 or 22"),
        ({"depth": 16, "widen_factor": 0}, "wrong widen_factor .got 0, expected 1 or more"),
        (
            {"depth": 16, "widen_factor": 1, "dropout": 1.0},
            "wrong dropout .got 1.0, expected at least 0 and below 1",
        ),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        WideResNet(**arguments, num_classes=10)
