"""Find the baseline of each problem, and compare all other groups with it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from amtml_pl.comparison.estimates import PairedDifference, holm
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
        raise UserError("baseline= is empty (expected a method).", fix="pass baseline=METHOD, or omit it")
    for problem in problems:
        problem.baseline = found_in(problem, baseline)
        if problem.baseline is None:
            continue
        values = problem.baseline.by_seed(metric)
        for group in problem.groups:
            group.is_baseline = group is problem.baseline
            group.against_baseline = PairedDifference.between(group.by_seed(metric), values)
        correct_for_number(problem)
        note_budgets(problem)
    if not any(problem.baseline for problem in problems):
        raise unknown(problems, baseline)


def correct_for_number(problem: Problem) -> None:
    """Set the corrected p-value of every group with a p-value."""
    tested = [(group, paired) for group in problem.groups
              if (paired := group.against_baseline) is not None and paired.p is not None]  # fmt: skip
    for (group, paired), value in zip(tested, holm([paired.p or 0.0 for _, paired in tested]), strict=True):
        group.against_baseline = replace(paired, holm=value)


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
            f"baseline={baseline} matches {len(plainest)} groups in {problem.title} "
            f"(expected one group, in which runs differ only in the seed):{listed}",
            fix=f"pass \"baseline='{plainest[0].name}'\"",
        )
    return plainest[0] if plainest else None


def unknown(problems: Sequence[Problem], baseline: str) -> UserError:
    """Return the error for an unknown baseline, with the closest known name, or else all."""
    groups = [group for problem in problems for group in problem.groups]
    names = {name for g in groups for name in (g.first.method, g.first.experiment, g.name) if name}
    close = difflib.get_close_matches(baseline, sorted(names), n=1)
    expected = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(sorted(names)):.600}"
    return UserError(
        f"baseline={baseline} is not a method, experiment or group of these runs ({expected}).",
        fix=f"pass baseline={close[0] if close else 'METHOD'}",
    )
