"""Find the baseline of each problem, and compare all other groups with it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from amtml_pl.comparison.estimates import PairedDifference
from amtml_pl.comparison.groups import Group, Problem, note_budgets
from amtml_pl.errors import UserError


def compare_with(problems: Sequence[Problem], baseline: str, metric: str) -> None:
    """Set every group's difference from the baseline of its problem, if it has one.

    Args:
        problems: all of a report.
        baseline: the name of a group, a method or an experiment.
        metric: the compared metric.

    Raises:
        UserError: if the name is empty, in no problem, or ambiguous in one.
    """
    if not baseline:
        raise UserError("baseline= names no group.", fix="baseline=METHOD, or leave it out")
    for problem in problems:
        problem.baseline = found_in(problem, baseline)
        if problem.baseline is None:
            continue
        values = problem.baseline.by_seed(metric)
        for group in problem.groups:
            group.is_baseline = group is problem.baseline
            group.against_baseline = PairedDifference.between(group.by_seed(metric), values)
        note_budgets(problem)
    if not any(problem.baseline for problem in problems):
        raise UserError(f"No group is called {baseline!r}{known(problems, baseline)}", fix="baseline=METHOD")


def found_in(problem: Problem, baseline: str) -> Group | None:
    """Return the group with a name, or the simplest group of that method or experiment."""
    for group in problem.groups:
        if group.name == baseline:
            return group
    meant = [group for group in problem.groups if group.first.method == baseline] or [
        group for group in problem.groups if group.first.experiment == baseline and not group.first.method
    ]
    fewest = min((len(group.first.settings) for group in meant), default=0)
    plainest = [group for group in meant if len(group.first.settings) == fewest]
    if len(plainest) > 1:
        listed = "".join(f"\n  - {group.name}" for group in plainest)
        raise UserError(
            f"baseline={baseline} may be one of {len(plainest)} groups of {problem.title}:{listed}",
            fix=f"\"baseline='{plainest[0].name}'\"",
        )
    return plainest[0] if plainest else None


def known(problems: Sequence[Problem], wrong: str) -> str:
    """Return the closest known name as a question, or else all names."""
    groups = [group for problem in problems for group in problem.groups]
    names = [name for g in groups for name in (g.first.method, g.first.experiment, g.name) if name]
    close = difflib.get_close_matches(wrong, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(set(names))):.600}."
