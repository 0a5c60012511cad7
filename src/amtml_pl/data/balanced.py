"""Draw training images so that every class is met equally often."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64, UInt64

from amtml_pl.data.counter_rng import permutation, random_bits


def balanced_order(
    labels: Int64[np.ndarray, " N"], state: UInt64[np.ndarray, " 1"]
) -> Int64[np.ndarray, " N"]:
    """Return N samples in random order, each class as often as any other.

    The numbers of draws of two classes differ by at most one, as do those of two images of a class. So an
    image of a small class is drawn several times, and each epoch draws a random part of a large class.

    Args:
        labels: of the N training images.
        state: of an epoch; determines the draws and their order.
    """
    counts = np.bincount(labels)
    present = np.flatnonzero(counts)
    by_class = np.split(labels.argsort(kind="stable"), counts[present].cumsum()[:-1])
    share, remainder = divmod(len(labels), len(present))
    draws = np.full(len(present), share)
    draws[permutation(len(present), random_bits(state, 0))[:remainder]] += 1
    drawn = [
        np.resize(rows[permutation(len(rows), random_bits(state, 2 + place))], draws[place])
        for place, rows in enumerate(by_class)
    ]
    order: Int64[np.ndarray, " N"] = permutation(len(labels), random_bits(state, 1))
    return np.concatenate(drawn).take(order)
