"""Write a comparison as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from amtml_pl.comparison.adaptivity_table import LEGEND as ADAPTIVITY_LEGEND
from amtml_pl.comparison.adaptivity_table import adapted_groups, adaptivity_table, class_tables, constant
from amtml_pl.comparison.answer import answer
from amtml_pl.comparison.evaluated_runs import Evaluated, evaluated
from amtml_pl.comparison.groups import Problem
from amtml_pl.comparison.mixture_table import LEGEND as MIXTURES_LEGEND
from amtml_pl.comparison.mixture_table import mixture_tables
from amtml_pl.comparison.origin import command, commits
from amtml_pl.comparison.tables import LEGEND, ShownTable, kept_apart, leaderboard, one_line

ESCAPES = {"|": "\\|", "<": "&lt;", ">": "&gt;", "&": "&amp;",
           **{character: f"\\{character}" for character in "\\`*_[]~$"}}  # fmt: skip
BETWEEN_LETTERS = re.compile(r"(?<=[^\W_])\\_(?=[^\W_])")  # where an underscore is not emphasis


def markdown(problems: Sequence[Problem], metric: str, left_out: Sequence[str] = ()) -> str:
    """Return a leaderboard for each problem, and the runs left out with the reasons."""
    parts = ["# Comparison of runs\n"]
    if apart := kept_apart(problems):
        parts.append(f"{apart}.\n")
    for problem in problems:
        parts.append(f"## {in_markdown(problem.title)}\n\n{in_markdown(answer(problem, metric))}\n")
        common = in_markdown(" ".join(problem.common))
        if common and len(problem.groups) > 1:
            parts.append(f"All runs have: {common}\n")
        if problem.common_of_teachers:
            parts.append(
                f"All runs with teachers have: {in_markdown(' '.join(problem.common_of_teachers))}\n"
            )
        found = leaderboard(problem, metric)
        origins = [(in_markdown(commits(group)), as_code(command(group))) for group in problem.groups]
        rows = [(*map(in_markdown, own), *of) for own, of in zip(found.rows, origins, strict=True)]
        parts.append(table([*found.columns, "commit", "command"], rows))
        if found.equal:
            parts.append(f"{in_markdown(found.equal)}\n")
        if found_in_evaluations := evaluated(problem):
            parts += of_evaluations(found_in_evaluations)
    parts.append(f"{LEGEND}\n")
    if left_out:
        parts.append("".join(["## Left out\n\n", *(f"- {in_markdown(each)}\n" for each in left_out)]))
    return "\n".join(parts)


def of_evaluations(found: Evaluated) -> Iterator[str]:
    """Yield the tables of the teachers' mixtures and of their weights, and what is missing."""
    groups = adapted_groups(found)
    adaptivity, sentence, mixtures = adaptivity_table(groups), constant(groups), mixture_tables(found)
    yield "### What decides?\n"
    yield from map(plain_table, mixtures)
    if mixtures:
        yield f"{MIXTURES_LEGEND}\n"
    if adaptivity or sentence:
        yield "### Do the weights adapt?\n"
    if sentence:
        yield f"{in_markdown(sentence)}\n"
    if adaptivity:
        yield plain_table(adaptivity)
        yield f"{ADAPTIVITY_LEGEND}\n"
        yield from map(plain_table, class_tables(groups))
    if found.notes:
        yield "".join(f"- {in_markdown(each)}\n" for each in found.notes)


def plain_table(shown: ShownTable) -> str:
    """Return a table with its caption above it and what is equal below it."""
    lines = table(shown.columns, [[*map(in_markdown, row)] for row in shown.rows])
    above, below = (in_markdown(text) for text in (shown.caption, shown.equal))
    return "\n".join(part for part in (above and f"{above}:\n", lines, below and f"{below}\n") if part)


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
