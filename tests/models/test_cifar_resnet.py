"""CifarResNet is the network of the papers, by parameters, shapes and initial weights."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amtml_pl.errors import UserError
from amtml_pl.models.cifar_resnet import CifarResNet, blocks_per_stage

PLAIN, TIMES_FOUR, THIN = (16, 16, 32, 64), (32, 64, 128, 256), (8, 8, 16, 32)


@pytest.mark.parametrize(
    ("depth", "widths", "published_millions"),
    [(8, PLAIN, 0.08), (20, PLAIN, 0.28), (56, PLAIN, 0.86), (110, PLAIN, 1.74), (32, TIMES_FOUR, 7.43),
     (8, THIN, 0.02)],
)  # fmt: skip
def test_parameters_are_as_many_as_published(depth, widths, published_millions):
    with torch.device("meta"):
        network = CifarResNet(depth, 100, widths)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 2) == published_millions


@pytest.mark.parametrize("size", [32, 64])
def test_each_stage_after_the_first_halves_the_map(size):
    network = CifarResNet(8, 7, THIN).eval()
    x = network.relu(network.bn1(network.conv1(torch.rand(2, 3, size, size))))
    for stage, channels, side in ((1, 8, size), (2, 16, size // 2), (3, 32, size // 4)):
        x = network.get_submodule(f"layer{stage}")(x)
        assert x.shape == (2, channels, side, side)
    assert network(torch.rand(1, 3, size, size)).shape == (1, 7)


def test_convolutions_start_with_a_variance_of_two_over_fan_out():
    weight = CifarResNet(8, 10, TIMES_FOUR).layer3[0].conv2.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.02)


@pytest.mark.parametrize(("depth", "nearest"), [(18, "14 or 20"), (-5, "8")])
def test_a_wrong_depth_is_refused_with_the_nearest_ones(depth, nearest):
    with pytest.raises(UserError, match=rf"got {depth}, expected 6n\+2 .*, such as {nearest}\)"):
        CifarResNet(depth, 10)


@given(blocks=st.integers(1, 50), remainder=st.sampled_from([2, 4]), more=st.integers(1, 5))
def test_a_depth_of_six_layers_per_block_is_accepted_and_no_other(blocks, remainder, more):
    assert blocks_per_stage("Network", 6 * blocks + remainder, remainder) == blocks
    nearest = f"such as {6 * blocks + remainder} or {6 * (blocks + 1) + remainder}"
    with pytest.raises(UserError, match=nearest):
        blocks_per_stage("Network", 6 * blocks + remainder + more, remainder)


def test_a_shortcut_that_pads_has_no_parameters_and_gives_zeros_around_every_second_pixel():
    network = CifarResNet(8, 10, shortcut="pad")
    assert not [name for name in network.state_dict() if "downsample" in name]
    maps = torch.rand(2, 16, 6, 6)
    padded = network.layer2[0].downsample(maps)
    assert padded.shape == (2, 32, 3, 3)
    assert torch.equal(padded[:, 8:24], maps[:, :, ::2, ::2])
    assert not padded[:, :8].any()
    assert not padded[:, 24:].any()
    assert network(torch.rand(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(UserError, match="cannot pad to fewer channels"):
        CifarResNet(8, 10, (16, 16, 32, 8), shortcut="pad")


@pytest.mark.parametrize("widths", [(16, 32, 64), (16, 16, 32, 0), (8, 16, 32, 64, 128)])
def test_anything_but_four_positive_widths_is_refused(widths):
    with pytest.raises(UserError, match="expected four positive numbers"):
        CifarResNet(8, 10, widths)
