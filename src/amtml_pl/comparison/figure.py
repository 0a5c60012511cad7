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
LEGEND_BESIDE = {"x": 1.02, "y": 1, "yanchor": "top", "orientation": "v"}  # of a wide figure


@dataclass(frozen=True)
class Variant:
    """One choice in a figure: its label, and its data in the terms of plotly.js.

    The layout has only what the page does not set: axes, height, lines.
    """

    label: str
    traces: Sequence[Trace]
    layout: Mapping[str, Any]


@dataclass(frozen=True)
class PageFigure:
    """A figure between the tables of a page.

    Attributes:
        kind: a word for the page's anchors, such as ``accuracy``.
        description: the caption, also for readers who cannot see the figure.
        choice: the property in which the variants differ.
        is_wide: True to take the page's whole width.
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
        ends = [*points, *(estimate.mean for estimate in estimates)]
        ends += [end for estimate in estimates if estimate.n > 2 for end in estimate.ends]
        margin = 0.05 * (max(ends) - min(ends)) or 0.01
        low, high = min(ends) - margin, max(ends) + margin
        is_cut = any(estimate.ends[0] < low or estimate.ends[1] > high for estimate in estimates)
        return cls((low, high), " Some intervals of two seeds are wider than the figure." if is_cut else "")


def escape_html(text: str) -> str:
    """Return a text with HTML escaped, as plotly.js reads some tags."""
    return html.escape(text, quote=False)


def short_label(text: str) -> str:
    """Return an escaped text, shortened in the middle to fit an axis or a legend."""
    half = LONGEST_NAME // 2 - 1
    return escape_html(text if len(text) <= LONGEST_NAME else f"{text[:half]}…{text[-half:]}")


def distinct_labels(names: Sequence[str]) -> list[str]:
    """Return shortened names, full where two would become the same."""
    short = [short_label(name) for name in names]
    pairs = zip(short, names, strict=True)
    return [label if short.count(label) == 1 else escape_html(name) for label, name in pairs]


def colour(number: int) -> str:
    """Return the colour of a group, by its number from 0."""
    return COLOURS[number % len(COLOURS)]


def axis(title: str, **more: object) -> dict[str, Any]:
    """Return an axis with a title, in the terms of plotly.js."""
    return {"title": {"text": escape_html(title)}, "automargin": True, **more}
