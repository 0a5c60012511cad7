"""Stored numbers differ from given ones by at most the rounding of the storage."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amtml_pl.teachers.cache.storage import decode, encode, encode_logits, probability_error, unusable_rows

pytestmark = pytest.mark.numbers

LARGEST = torch.finfo(torch.float16).max


def maps(rows=6, channels=3, places=(2, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, channels, *places, generator=generator)
    return values * torch.tensor([0.1, 1, 40])[:, None, None]


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_floats_are_rounded_to_the_nearest_and_keep_their_type(storage):
    encoded = encode(maps(), storage)
    assert encoded.keys() == {"values"}
    read = decode(encoded["values"], None)
    assert read.dtype == getattr(torch, storage)
    assert torch.equal(read, maps().to(read.dtype))


@settings(max_examples=50)
@given(arrays(np.float32, (5, 3, 2, 2), elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_int8_is_at_most_half_a_step_of_its_channel_off(values):
    given_maps = torch.from_numpy(values)
    encoded = encode(given_maps, "int8")
    off = (decode(encoded["values"], encoded["scale"]) - given_maps).abs().amax(dim=(0, 2, 3))
    assert (off <= encoded["scale"] / 2 * (1 + 1e-4)).all()


def test_a_channel_of_zeros_is_read_back_as_zeros_and_its_scale_hides_no_other():
    values = maps()
    values[:, 1] = 0
    encoded = encode(values, "int8")
    assert (decode(encoded["values"], encoded["scale"])[:, 1] == 0).all()
    assert 0 < encoded["scale"][1] < encoded["scale"][[0, 2]].min()


def test_one_large_value_costs_the_precision_of_its_channel_in_int8_and_of_no_other():
    values = maps()
    values[0, 0, 0, 0] = 300
    encoded = encode(values, "int8")
    off = (decode(encoded["values"], encoded["scale"]) - values).abs()
    assert (decode(encoded["values"], encoded["scale"])[1:, 0] == 0).all()
    assert off[:, 1].max() < 0.02


def test_the_error_of_probabilities_is_their_mean_total_variation():
    logits, stored = (
        torch.tensor([[0.0, 0.0], [1.0, -torch.inf]]),
        torch.tensor([[0.0, 1.0], [2.0, -torch.inf]]),
    )
    assert probability_error(logits, stored) == pytest.approx((1 / (1 + math.exp(-1)) - 0.5) / 2)
    assert probability_error(logits, logits) == 0


def near_ties(draw):
    """Draw logits that are too close for float16."""
    centre = draw(st.floats(-6e4, 6e4, width=32))
    steps = draw(st.lists(st.integers(-3, 3), min_size=2, max_size=8))
    return torch.tensor([steps], dtype=torch.float32) * max(abs(centre), 1e-6) * 2e-5 + centre


@settings(max_examples=300)
@given(st.composite(near_ties)())
def test_float16_keeps_the_class_with_the_largest_logit_where_rounding_makes_ties(logits):
    stored = encode_logits(logits, "float16")["values"]
    assert stored.argmax(dim=1).equal(logits.argmax(dim=1))
    assert torch.isfinite(stored).all()


@settings(max_examples=100)
@given(arrays(np.float32, (7, 5), elements=st.floats(-6e4, 6e4, width=32)))
def test_only_the_largest_logit_may_differ_from_plain_rounding_and_by_one_step(values):
    logits = torch.from_numpy(values)
    stored, plain = encode_logits(logits, "float16")["values"], logits.half()
    assert stored.argmax(dim=1).equal(logits.argmax(dim=1))
    for row, best in enumerate(logits.argmax(dim=1).tolist()):
        others = [k for k in range(5) if k != best]
        assert stored[row, others].equal(plain[row, others])
        up = np.nextafter(plain[row, best].numpy(), np.float16(np.inf))
        assert stored[row, best].item() in (plain[row, best].item(), float(up))


@pytest.mark.parametrize("best", [0, 1, 2])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_tie_at_the_largest_float16_stays_finite(best, sign):
    logits = torch.full((1, 3), sign * (LARGEST - 1))
    logits[0, best] += 0.5
    stored = encode_logits(logits, "float16")["values"]
    assert logits.half().unique().numel() == 1
    assert stored.argmax(dim=1).tolist() == [best]
    assert torch.isfinite(stored).all()
    assert (stored.float() - logits).abs().max() <= 33  # one step of 32 there, and the rounding


def test_encoding_leaves_the_given_logits_as_they_were():
    for given_type in (torch.float32, torch.float16):
        logits = torch.tensor([[1.0, 1.0001, 1.0]], dtype=given_type)
        before = logits.clone()
        encode_logits(logits, "float16")
        assert logits.equal(before)


def test_rows_that_are_not_finite_or_beyond_float16_are_unusable():
    values = maps()
    values[1, 0, 0, 0], values[4, 2, 1, 1] = float("nan"), -float("inf")
    for storage in ("float32", "float16", "int8"):
        assert unusable_rows(values, storage).tolist() == [1, 4]
    logits = torch.tensor([[LARGEST, -LARGEST], [LARGEST * 1.001, 0], [0, -LARGEST * 1.001]])
    assert unusable_rows(logits, "float16").tolist() == [1, 2]
    assert unusable_rows(logits, "float32").tolist() == []
