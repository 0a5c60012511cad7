"""What a few seeds tell of a mean, and of a difference between two of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtr, stdtrit  # scipy.stats takes a second to import

CONFIDENCE = 0.95
LARGEST = 1e100  # sums of squares of what is larger overflow
ROUNDING = 1e-6  # of a number: what records hold was measured in float32, which rounds to 6e-8 of it


@dataclass(frozen=True)
class Estimate:
    """The mean of n runs' numbers, and its 95 % interval by Student's t.

    Attributes:
        deviation: their standard deviation (n - 1); None for one.
        half_width: of the interval; None for one.
    """

    n: int
    mean: float
    deviation: float | None
    half_width: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Estimate the mean from at least one number."""
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
        """Both ends of the interval; twice the mean where there is none."""
        width = self.half_width or 0.0
        return self.mean - width, self.mean + width

    def interval(self) -> str:
        """``[0.9071, 0.9329]``; empty for one number."""
        return "" if self.half_width is None else f"[{self.ends[0]:.4f}, {self.ends[1]:.4f}]"


def of_seeds(n: int) -> str:
    """`` (2 seeds)``, beside a number that fewer have than might."""
    return f" ({n} seed{'s' if n > 1 else ''})"


def can_be_averaged(value: float) -> bool:
    """Whether a number is finite, and far from being too large to be counted with."""
    return abs(value) < LARGEST


@dataclass(frozen=True)
class PairedDifference:
    """How much more one group has than the baseline, over the n seeds that both have.

    Attributes:
        partial: whether one of them has other seeds too.
        mean: of the differences; None without a common seed.
        p: of the paired t-test, two-sided; None where it cannot be had.
        without_p: why not; empty where it can.
    """

    n: int
    partial: bool
    mean: float | None
    p: float | None
    without_p: str = ""

    @classmethod
    def between(cls, own: Mapping[int, float], baseline: Mapping[int, float]) -> PairedDifference:
        """Compare two groups' numbers by seed."""
        differences = [own[seed] - baseline[seed] for seed in sorted(own.keys() & baseline.keys())]
        n = len(differences)
        partial = n < max(len(own), len(baseline))
        if not n:
            return cls(0, partial, None, None, "no seed")
        mean = statistics.fmean(differences)
        if n < 2:
            return cls(n, partial, mean, None, "1 seed")
        deviation = statistics.stdev(differences)
        if deviation <= ROUNDING * max(map(abs, (*own.values(), *baseline.values()))):
            return cls(n, partial, mean, None, "no spread")
        t = mean / (deviation / math.sqrt(n))
        return cls(n, partial, mean, 2 * float(stdtr(n - 1, -abs(t))))

    def difference(self) -> str:
        """``+0.0123``, of some seeds only ``+0.0123 (2 seeds)``; empty without a common seed."""
        if self.mean is None:
            return ""
        return f"{self.mean:+.4f}{of_seeds(self.n) if self.partial else ''}"

    def probability(self) -> str:
        """``0.0123``, or why there is none, in brackets."""
        if self.p is None:
            return f"({self.without_p})"
        return f"{self.p:.4f}" if self.p >= 1e-4 else f"{self.p:.0e}"
