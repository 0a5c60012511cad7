"""What part of an axis a figure shows at first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amtml_pl.comparison.estimates import Estimate


@dataclass(frozen=True)
class Frame:
    """A part of an axis.

    Attributes:
        range: its ends.
        said: a sentence, after a space, on what lies beyond it; empty where nothing does.
    """

    range: tuple[float, float]
    said: str


def frame_of(estimates: Sequence[Estimate], points: Sequence[float] = ()) -> Frame:
    """Shows every mean, every point, and every interval but those of two seeds, which are vast.

    Args:
        estimates: at least one.
        points: other numbers that are to be seen.
    """
    ends = [*points]
    for estimate in estimates:
        width = (estimate.half_width or 0.0) if estimate.n > 2 else 0.0
        ends += [estimate.mean - width, estimate.mean + width]
    margin = 0.05 * (max(ends) - min(ends)) or 0.01
    low, high = min(ends) - margin, max(ends) + margin
    is_cut = any(
        estimate.mean - (estimate.half_width or 0.0) < low
        or estimate.mean + (estimate.half_width or 0.0) > high
        for estimate in estimates
    )
    return Frame((low, high), " Intervals of two seeds go beyond the frame." if is_cut else "")
