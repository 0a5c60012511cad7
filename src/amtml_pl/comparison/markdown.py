"""Write a comparison as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from amtml_pl.comparison.groups import Problem
from amtml_pl.comparison.tables import LEGEND, cells, columns, kept_apart, one_line

ESCAPES = {"|": "\\|", "<": "&lt;", ">": "&gt;", "&": "&amp;",
           **{character: f"\\{character}" for character in "\\`*_[]~$"}}  # fmt: skip
BETWEEN_LETTERS = re.compile(r"(?<=[^\W_])\\_(?=[^\W_])")  # where an underscore is not emphasis


def markdown(problems: Sequence[Problem], metric: str, left_out: Sequence[str] = ()) -> str:
    """Return a table for each problem, and the runs left out with the reasons."""
    parts = ["# Comparison of runs\n"]
    if apart := kept_apart(problems):
        parts.append(f"{apart}.\n")
    for problem in problems:
        head = columns(problem, metric)
        rows = [head, ["---"] * len(head), *(cells(group, problem, metric) for group in problem.groups)]
        lines = "".join(f"| {' | '.join(map(in_markdown, row))} |\n" for row in rows)
        common = in_markdown(" ".join(problem.common))
        shared = f"All runs have: {common}\n\n" if common and len(problem.groups) > 1 else ""
        parts.append(f"## {in_markdown(problem.title)}\n\n{shared}{lines}")
    parts.append(f"{LEGEND}\n")
    if left_out:
        parts.append("".join(["## Left out\n\n", *(f"- {in_markdown(each)}\n" for each in left_out)]))
    return "\n".join(parts)


def in_markdown(text: str) -> str:
    """Return a text escaped for Markdown; underscores within a word stay readable."""
    return BETWEEN_LETTERS.sub("_", one_line(text, ESCAPES))
