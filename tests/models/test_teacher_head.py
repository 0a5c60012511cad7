"""A backbone's logits: of a linear layer on its features, or none."""

import pytest
import torch
from torch import nn

from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork, blank_forward
from amtml_pl.models.teacher_head import LinearHead, NoHead


def tapped(head, *, rest=()):
    """A convolution with three channels, and what follows it."""
    layers = nn.Sequential()
    layers.add_module("conv", nn.Conv2d(3, 3, 3))
    for number, module in enumerate(rest):
        layers.add_module(f"rest{number}", module)
    return TappedNetwork(layers, mean=[0.5] * 3, std=[0.5] * 3, taps=["conv"], head=head)


def test_without_a_head_hints_are_given_and_every_logit_is_zero():
    outputs = blank_forward(tapped(NoHead(5)), 8)
    assert torch.equal(outputs.logits, torch.zeros(1, 5))
    assert outputs.features["conv"].shape == (1, 3, 6, 6)


def test_before_the_fit_a_linear_head_returns_the_mean_of_the_hint_over_its_positions():
    outputs = blank_forward(tapped(LinearHead("conv")), 8)
    torch.testing.assert_close(outputs.logits, outputs.features["conv"].mean(dim=(2, 3)))


def test_a_fitted_head_classifies_the_features():
    head = LinearHead("conv", nn.Linear(3, 5))
    outputs = blank_forward(tapped(head), 8)
    torch.testing.assert_close(outputs.logits, head.linear(outputs.features["conv"].mean(dim=(2, 3))))


def test_without_a_hint_the_features_are_the_output_of_the_network():
    outputs = blank_forward(tapped(LinearHead(None), rest=[nn.Flatten()]), 4)
    assert outputs.logits.shape == (1, 12)


def test_a_map_as_output_needs_a_hint():
    with pytest.raises(
        UserError, match=r"(?s)no features .*got \(1, 3, 6, 6\), expected .*teacher.NAME.hint"
    ):
        blank_forward(tapped(LinearHead(None)), 8)
