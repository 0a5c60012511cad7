"""The data of a figure in a report's page, for plotly.js."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amtml_pl.comparison.estimates import Estimate

Trace = dict[str, Any]

# Ten colours that differ on white and on black; further groups reuse them with other dashes.
COLOURS = ("#3b7dd8", "#e07b39", "#2a9d6f", "#c94f7c", "#8a63d2", "#b8952b", "#3fa7ba", "#a0623a", "#7f8c8d",
           "#d64545")  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot")
COLOUR_OF_SEEDS = "#8a94a3"
LONGEST_NAME = 44


@dataclass(frozen=True)
class Variant:
    """One choice in a figure: its label, and its data in the terms of plotly.js.

    The layout has only what the page does not set: axes, height, lines.
    """

    label: str
    traces: Sequence[Trace]
    layout: Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure between the tables of a page.

    Attributes:
        kind: a word for the page's anchors, such as ``accuracy``.
        description: the content of the figure in words, also for readers who cannot see it.
        choice: the property in which the variants differ.
        is_wide: whether it takes the page's whole width.
    """

    kind: str
    title: str
    description: str
    variants: Sequence[Variant]
    choice: str = ""
    is_wide: bool = False


@dataclass(frozen=True)
class Frame:
    """The visible range of an axis, and a sentence if intervals go beyond it."""

    range: tuple[float, float]
    note: str

    @classmethod
    def of(cls, estimates: Sequence[Estimate], points: Sequence[float] = ()) -> Frame:
        """Return the range of all means, points and intervals, except those of two seeds."""
        ends = [*points]
        for estimate in estimates:
            low, high = estimate.ends if estimate.n > 2 else (estimate.mean, estimate.mean)
            ends += [low, high]
        margin = 0.05 * (max(ends) - min(ends)) or 0.01
        low, high = min(ends) - margin, max(ends) + margin
        is_cut = any(estimate.ends[0] < low or estimate.ends[1] > high for estimate in estimates)
        return cls((low, high), " Intervals of two seeds go beyond the frame." if is_cut else "")


def plain(text: str) -> str:
    """Return a text with HTML escaped, as plotly.js reads some tags."""
    return html.escape(text, quote=False)


def named(text: str) -> str:
    """Return an escaped text, shortened in the middle to fit an axis or a legend."""
    if len(text) <= LONGEST_NAME:
        return plain(text)
    half = LONGEST_NAME // 2 - 1
    return plain(f"{text[:half]}…{text[-half:]}")


def distinct(names: Sequence[str]) -> list[str]:
    """Return shortened names, full where two would become the same."""
    short = [named(name) for name in names]
    pairs = zip(short, names, strict=True)
    return [label if short.count(label) == 1 else plain(name) for label, name in pairs]


def colour(number: int) -> str:
    """Return the colour of a group, by its number from 0."""
    return COLOURS[number % len(COLOURS)]


def dash(number: int) -> str:
    """Return the dash style of a group's lines, by its number from 0."""
    return DASHES[number // len(COLOURS) % len(DASHES)]


def faint(number: int) -> str:
    """Return a group's colour for areas, by its number from 0."""
    red, green, blue = (int(colour(number)[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def titled(text: str, **more: object) -> dict[str, Any]:
    """Return an axis with a title."""
    return {"title": {"text": plain(text)}, "automargin": True, **more}
