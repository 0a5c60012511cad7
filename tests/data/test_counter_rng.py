import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from amtml_pl.data.counter_rng import permutation, random_bits, uniform

integers = st.integers(-(2**70), 2**70)


def test_the_numbers_are_those_of_splitmix64():
    # The sequence of the reference implementation for the seed 1234567, as on Rosetta Code.
    expected = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
        16408922859458223821,
    ]  # fmt: skip
    assert random_bits(1234567, np.arange(5)).tolist() == expected


@given(state=integers)
def test_any_integer_is_a_state_and_counts_modulo_2_to_the_64(state):
    assert random_bits(state, 3) == random_bits(state % 2**64, 3)


@given(state=integers, positions=st.sets(st.integers(0, 2**63 - 1), min_size=2, max_size=50))
def test_different_positions_of_a_sequence_hold_different_numbers(state, positions):
    assert len(set(random_bits(state, np.array(sorted(positions))).tolist())) == len(positions)


@settings(max_examples=30)
@given(size=st.integers(0, 300), seed=integers)
def test_a_permutation_holds_every_number_once(size, seed):
    assert sorted(permutation(size, random_bits(seed, 0)).tolist()) == list(range(size))


def test_uniform_numbers_fill_the_unit_interval_evenly():
    draws = uniform(random_bits(0, np.arange(1000)), view=1, count=10)
    assert draws.min() >= 0
    assert draws.max() < 1
    counts, _ = np.histogram(draws, bins=20, range=(0, 1))
    assert np.abs(counts - 500).max() < 4 * np.sqrt(500)
    assert np.abs(np.corrcoef(draws, rowvar=False) - np.eye(10)).max() < 0.12
