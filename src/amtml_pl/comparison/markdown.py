"""A comparison as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from amtml_pl.comparison.groups import Problem
from amtml_pl.comparison.tables import LEGEND, cells, columns, kept_apart, one_line

ESCAPES = {"|": "\\|", "<": "&lt;", ">": "&gt;", "&": "&amp;",
           **{character: f"\\{character}" for character in "\\`*_[]~$"}}  # fmt: skip
BETWEEN_LETTERS = re.compile(r"(?<=[^\W_])\\_(?=[^\W_])")  # where an underscore is no emphasis


def markdown(problems: Sequence[Problem], metric: str, left_out: Sequence[str] = ()) -> str:
    """Write a table for each problem, and what was left out, each with the reason."""
    parts = ["# Comparison of runs\n"]
    if said := kept_apart(problems):
        parts.append(f"{said}.\n")
    for problem in problems:
        head = columns(problem, metric)
        rows = [head, ["---"] * len(head), *(cells(group, problem, metric) for group in problem.groups)]
        lines = "".join(f"| {' | '.join(map(in_markdown, row))} |\n" for row in rows)
        common = in_markdown(" ".join(problem.common))
        said = f"All runs: {common}\n\n" if common and len(problem.groups) > 1 else ""
        parts.append(f"## {in_markdown(problem.title)}\n\n{said}{lines}")
    parts.append(f"{LEGEND}\n")
    if left_out:
        parts.append("".join(["## Left out\n\n", *(f"- {in_markdown(each)}\n" for each in left_out)]))
    return "\n".join(parts)


def in_markdown(text: str) -> str:
    """Escape a text for Markdown; underscores within a word stay readable."""
    return BETWEEN_LETTERS.sub("_", one_line(text, ESCAPES))
