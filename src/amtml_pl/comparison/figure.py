"""A figure of a report's page, as plotly.js draws it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Trace = dict[str, Any]

# Ten colours that are told apart on white and on black; further groups have them again with other dashes.
COLOURS = ("#3b7dd8", "#e07b39", "#2a9d6f", "#c94f7c", "#8a63d2", "#b8952b", "#3fa7ba", "#a0623a", "#7f8c8d",
           "#d64545")  # fmt: skip
DASHES = ("solid", "dash", "dot", "dashdot")
COLOUR_OF_SEEDS = "#8a94a3"
LONGEST_NAME = 44


@dataclass(frozen=True)
class Variant:
    """One of the things that a figure can show.

    Attributes:
        label: what is chosen by.
        traces: in the terms of plotly.js.
        layout: what is not the page's to say: axes, height, lines.
    """

    label: str
    traces: Sequence[Trace]
    layout: Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """What a page shows between its tables.

    Attributes:
        kind: a word for the page's anchors, such as ``accuracy``.
        title: above the figure.
        description: what is to be seen, for who reads and for who cannot see it.
        variants: one, or several to choose from.
        choice: what the variants differ in.
        is_wide: whether it takes the page's whole width.
    """

    kind: str
    title: str
    description: str
    variants: Sequence[Variant]
    choice: str = ""
    is_wide: bool = False


def plain(text: str) -> str:
    """A text that plotly.js draws as it is: some HTML would be markup to it."""
    return html.escape(text, quote=False)


def named(text: str) -> str:
    """`plain`, shortened in the middle to what an axis or a legend has room for."""
    if len(text) <= LONGEST_NAME:
        return plain(text)
    half = LONGEST_NAME // 2 - 1
    return plain(f"{text[:half]}…{text[-half:]}")


def distinct(names: Sequence[str]) -> list[str]:
    """`named` for names of which no two may become the same."""
    short = [named(name) for name in names]
    return [
        label if short.count(label) == 1 else plain(name) for label, name in zip(short, names, strict=True)
    ]


def colour(number: int) -> str:
    """Of the group with a number, from 0."""
    return COLOURS[number % len(COLOURS)]


def dash(number: int) -> str:
    """Of the group's lines."""
    return DASHES[number // len(COLOURS) % len(DASHES)]


def faint(number: int) -> str:
    """The group's colour for areas."""
    red, green, blue = (int(colour(number)[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"


def titled(text: str, **more: object) -> dict[str, Any]:
    """An axis."""
    return {"title": {"text": plain(text)}, "automargin": True, **more}
