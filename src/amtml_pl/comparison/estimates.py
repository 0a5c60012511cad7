"""Estimate a mean, and the difference of two means, from a few seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

from amtml_pl.system.console import counted

CONFIDENCE = 0.95
LARGEST = 1e100  # sums of larger squares overflow
ROUNDING = 1e-6  # relative: records hold float32 measurements, rounded by 6e-8


@dataclass(frozen=True)
class Estimate:
    """The mean of n runs' values, and its 95 % interval by Student's t.

    Attributes:
        deviation: the standard deviation (n - 1); None for one value.
        half_width: of the interval; None for one value.
    """

    n: int
    mean: float
    deviation: float | None
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Return the estimate from at least one value."""
        n, mean = len(values), statistics.fmean(values)
        if n < 2:
            return cls(n, mean, None, None)
        deviation = statistics.stdev(values)
        quantile = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2))
        return cls(n, mean, deviation, quantile * deviation / math.sqrt(n))

    def __str__(self) -> str:
        return f"{self.mean:.4f}" + ("" if self.deviation is None else f" ± {self.deviation:.4f}")

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends of the interval; twice the mean without an interval."""
        width = self.half_width or 0.0
        return self.mean - width, self.mean + width

    def interval(self) -> str:
        """Return the interval as ``[0.9071, 0.9329]``; empty for one value."""
        return "" if self.half_width is None else f"[{self.ends[0]:.4f}, {self.ends[1]:.4f}]"


def of_seeds(n: int) -> str:
    """Return a number of seeds, as `` (2 seeds)``, for an incomplete value."""
    return f" ({counted(n, 'seed')})"


def can_be_averaged(value: float) -> bool:
    """Return True if a value is finite and small enough to compute with."""
    return abs(value) < LARGEST


@dataclass(frozen=True)
class PairedDifference:
    """The mean difference between a group and the baseline, over their n common seeds.

    Attributes:
        partial: True if one of them has other seeds too.
        mean: of the differences; None without a common seed.
        error: the standard error of the mean; None for fewer than two seeds.
        p: of the paired t-test, two-sided; None if it cannot be computed.
        without_p: the reason for that; else empty.
        holm: p corrected for all groups that are compared with the baseline; None without p.
    """

    n: int
    partial: bool
    mean: float | None
    error: float | None = None
    p: float | None = None
    without_p: str = ""
    holm: float | None = None

    @classmethod
    def between(cls, own: Mapping[int, float], baseline: Mapping[int, float]) -> PairedDifference:
        """Return the difference of two groups' values by seed."""
        differences = [own[seed] - baseline[seed] for seed in sorted(own.keys() & baseline.keys())]
        n = len(differences)
        partial = n < max(len(own), len(baseline))
        if not n:
            return cls(0, partial, None, without_p="no seed")
        mean = statistics.fmean(differences)
        if n < 2:
            return cls(n, partial, mean, without_p="1 seed")
        deviation = statistics.stdev(differences)
        error = deviation / math.sqrt(n)
        if deviation <= ROUNDING * max(map(abs, (*own.values(), *baseline.values()))):
            return cls(n, partial, mean, error, without_p="no spread")
        return cls(n, partial, mean, error, 2 * float(stdtr(n - 1, -abs(mean / error))))

    def difference(self) -> str:
        """Return ``+0.0123 ± 0.0045``, with the number of seeds if not all."""
        return f"{self.distance()}{of_seeds(self.n) if self.partial and self.mean is not None else ''}"

    def distance(self) -> str:
        """Return ``+0.0123 ± 0.0045``; empty without a shared seed."""
        error = "" if self.error is None else f" ± {self.error:.4f}"
        return "" if self.mean is None else f"{self.mean:+.4f}{error}"

    def probability(self) -> str:
        """Return p and its number of seeds, or the reason for its absence."""
        return f"({self.without_p})" if self.p is None else f"{rounded(self.p)} (n = {self.n})"

    def corrected(self) -> str:
        """Return the p-value after Holm's correction; empty without one."""
        return "" if self.holm is None else rounded(self.holm)


def rounded(p: float) -> str:
    """Return a p-value with four decimals, a small one as a power."""
    return f"{p:.4f}" if p >= 1e-4 else f"{p:.0e}"


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, so that all false findings together are limited.

    The smallest of m values is multiplied by m, the next one by m - 1, and so on; a corrected value is never
    below an earlier one, nor above 1. After Holm, "A Simple Sequentially Rejective Multiple Test Procedure"
    (Scandinavian Journal of Statistics 6, 1979).

    Args:
        values: m values in [0, 1], in any order.
    """
    corrected, reached = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        reached = max(reached, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = reached
    return corrected
