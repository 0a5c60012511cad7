"""CifarResNet is the network of the papers, by parameters, shapes and initial weights."""

import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from amtml_pl.errors import UserError
from amtml_pl.models.cifar_resnet import CifarResNet, blocks_per_stage

PLAIN, TIMES_FOUR, THIN = (16, 16, 32, 64), (32, 64, 128, 256), (8, 8, 16, 32)


def parameters_by_formula(depth, widths, K):
    """Stem, then per stage one block that may project and n-1 that do not, then the classifier."""
    total = 27 * widths[0] + 2 * widths[0]
    for stage in (1, 2, 3):
        c_in, c = widths[stage - 1], widths[stage]
        n = (depth - 2) // 6
        total += 9 * c_in * c + (2 * n - 1) * 9 * c * c + 2 * n * 2 * c
        total += c_in * c + 2 * c if stage > 1 or c_in != c else 0
    return total + widths[3] * K + K


@pytest.mark.parametrize(
    ("depth", "widths", "published_millions"),
    [(8, PLAIN, 0.08), (20, PLAIN, 0.28), (56, PLAIN, 0.86), (110, PLAIN, 1.74), (32, TIMES_FOUR, 7.43),
     (8, THIN, 0.02)],
)  # fmt: skip
def test_parameters_are_those_of_the_architecture(depth, widths, published_millions):
    with torch.device("meta"):
        network = CifarResNet(depth, 100, widths)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == parameters_by_formula(depth, widths, 100)
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


@pytest.mark.parametrize(("depth", "nearest"), [(18, "14 and 20"), (9, "8 and 14"), (3, "8"), (-5, "8")])
def test_another_depth_is_refused_with_the_nearest_ones(depth, nearest):
    with pytest.raises(UserError, match=rf"depth={depth}; expected 6n\+2 .* The nearest: {nearest}\."):
        CifarResNet(depth, 10)


@given(depth=st.integers(-20, 300), remainder=st.sampled_from([2, 4]))
def test_a_depth_is_either_six_blocks_a_time_or_refused_with_depths_that_are(depth, remainder):
    try:
        assert 6 * blocks_per_stage("Network", depth, remainder) + remainder == depth
    except UserError as refused:
        offered = [int(number) for number in re.findall(r"\d+", str(refused).partition("The nearest: ")[2])]
        assert offered
        assert all(blocks_per_stage("Network", other, remainder) for other in offered)
        assert depth < 6 + remainder or min(offered) < depth < max(offered[:2])


@pytest.mark.parametrize("widths", [(16, 32, 64), (16, 16, 32, 0), (8, 16, 32, 64, 128)])
def test_anything_but_four_positive_widths_is_refused(widths):
    with pytest.raises(UserError, match="expected four positive numbers"):
        CifarResNet(8, 10, widths)
