"""Write a comparison as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.mixture_table import COLUMNS, MixtureTable, mixture_table
from amtml_pl.comparison.mixture_table import LEGEND as MIXTURES_LEGEND
from amtml_pl.comparison.origin import command, commits
from amtml_pl.comparison.tables import LEGEND, cells, columns, kept_apart, one_line

ESCAPES = {"|": "\\|", "<": "&lt;", ">": "&gt;", "&": "&amp;",
           **{character: f"\\{character}" for character in "\\`*_[]~$"}}  # fmt: skip
BETWEEN_LETTERS = re.compile(r"(?<=[^\W_])\\_(?=[^\W_])")  # where an underscore is not emphasis


def markdown(problems: Sequence[Problem], metric: str, left_out: Sequence[str] = ()) -> str:
    """Return a leaderboard for each problem, and the runs left out with the reasons."""
    parts = ["# Comparison of runs\n"]
    if apart := kept_apart(problems):
        parts.append(f"{apart}.\n")
    for problem in problems:
        head = [*columns(problem, metric), "commit", "command"]
        lines = table(head, [leaderboard_row(group, problem, metric) for group in problem.groups])
        common = in_markdown(" ".join(problem.common))
        shared = f"All runs have: {common}\n\n" if common and len(problem.groups) > 1 else ""
        parts.append(f"## {in_markdown(problem.title)}\n\n{shared}{lines}")
        if mixtures := mixture_table(problem):
            parts.append(what_decides(mixtures))
    parts.append(f"{LEGEND}\n")
    if left_out:
        parts.append("".join(["## Left out\n\n", *(f"- {in_markdown(each)}\n" for each in left_out)]))
    return "\n".join(parts)


def what_decides(mixtures: MixtureTable) -> str:
    """Return the table of the teachers' mixtures, and what is missing."""
    lines = table(COLUMNS, [[*map(in_markdown, row)] for row in mixtures.rows]) if mixtures.rows else ""
    notes = "".join(f"- {in_markdown(each)}\n" for each in mixtures.notes)
    shown = "\n".join(part for part in (lines, f"{MIXTURES_LEGEND}\n" if lines else "", notes) if part)
    return f"### What decides?\n\n{shown}"


def leaderboard_row(group: Group, problem: Problem, metric: str) -> list[str]:
    """Return a group's cells, and where they come from."""
    own = [*cells(group, problem, metric), commits(group)]
    return [*map(in_markdown, own), as_code(command(group))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the cells of its rows are Markdown."""
    lines = [[*map(in_markdown, head)], ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_code(text: str) -> str:
    """Return a text as code in a cell; escaped if it has a backquote."""
    return in_markdown(text) if "`" in text else f"`{one_line(text, {'|': ESCAPES['|']})}`"


def in_markdown(text: str) -> str:
    """Return a text escaped for Markdown; underscores within a word stay readable."""
    return BETWEEN_LETTERS.sub("_", one_line(text, ESCAPES))
