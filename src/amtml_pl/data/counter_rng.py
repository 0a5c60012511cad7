"""Compute random numbers from their position, instead of drawing them from a generator.

splitmix64 is a random function of a counter: any number of its sequence is reached in one step, so there is
no state to carry, save or restore.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64, Integer, UInt64

_GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def random_bits(
    state: int | Integer[np.ndarray, "*S"], position: int | Integer[np.ndarray, "*P"]
) -> UInt64[np.ndarray, "*SP"]:
    """Return 64-bit numbers at positions of the splitmix64 sequences that start at ``state``.

    For one state, different positions give different numbers. A number may be the state of a further
    sequence: ``random_bits(random_bits(seed, a), b)`` is keyed by all three.

    Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014,
    https://doi.org/10.1145/2660193.2660195; the constants are those of
    https://prng.di.unimi.it/splitmix64.c.

    Args:
        state: integers of any size and sign, taken modulo 2^64.
        position: integers from 0, broadcast against ``state``.

    Returns:
        uint64 in the broadcast shape, in which a plain integer counts as an array of one number.
    """
    bits = _uint64(state) + (_uint64(position) + np.uint64(1)) * _GOLDEN_GAMMA
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64[np.ndarray, "*SP"] = bits ^ (bits >> np.uint64(31))
    return mixed


def uniform(keys: UInt64[np.ndarray, " B"], view: int, count: int) -> Float64[np.ndarray, "B {count}"]:
    """Return ``count`` numbers in [0, 1) per sample, from its key and the view."""
    bits = random_bits(random_bits(keys, view)[:, None], np.arange(count))
    return (bits >> np.uint64(11)) * 2.0**-53


def permutation(size: int, state: int | UInt64[np.ndarray, " 1"]) -> Int64[np.ndarray, " {size}"]:
    """Return the numbers 0 … size - 1 in an order determined by ``state``."""
    # The keys differ from each other, so that every sorting algorithm gives the same order.
    return random_bits(state, np.arange(size)).argsort()


def _uint64(number: int | Integer[np.ndarray, "*S"]) -> UInt64[np.ndarray, "*_"]:
    """Return an array of at least one dimension, as numpy's scalars warn of overflow."""
    if isinstance(number, int):
        return np.array([number % 2**64], dtype=np.uint64)
    return number.astype(np.uint64)
