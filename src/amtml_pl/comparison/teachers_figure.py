"""The figure of what more teachers bring, as the paper's Fig. 3."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.families import Family, Varied, families_of
from amtml_pl.comparison.figure import Figure
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.lines import Line, drawn
from amtml_pl.comparison.recorded_run import Run

Teachers = tuple[str, ...]
VARIED = Varied(settings=("teacher",), facts=())


def accuracy_by_teachers(problem: Problem, metric: str) -> Figure | None:
    """A line for each family whose groups have different numbers of teachers."""
    taught = [group for group in problem.groups if group.first.record.teachers]
    by_count = {family.name: choices_of(family) for family in families_of(taught, VARIED, teachers_of)}
    lines = [
        Line(
            name,
            {count: Estimate.of(means_by_seed(groups, metric)) for count, groups in choices.items()},
            {count: f", {len(groups)} choices" for count, groups in choices.items() if len(groups) > 1},
        )
        for name, choices in by_count.items()
        if len(choices) > 1
    ]
    if not lines:
        return None
    counts = sorted({count for line in lines for count in line.points})
    variant, frame = drawn("", lines, metric, "number of teachers", {"tickvals": counts})
    return Figure(
        "teachers",
        f"{metric} by number of teachers",
        f"Mean {metric} with its 95 % interval over the seeds for {', '.join(map(str, counts))} teachers; of "
        f"several choices of as many teachers the mean for each seed.{frame.said}",
        [variant],
    )


def teachers_of(run: Run) -> Teachers:
    """A choice of teachers, in whatever order it was typed."""
    return tuple(sorted(run.record.teachers))


def choices_of(family: Family[Teachers]) -> Mapping[int, list[Group]]:
    """The groups by their number of teachers, each of another choice."""
    found: dict[int, list[Group]] = defaultdict(list)
    for teachers, group in family.groups.items():
        found[len(teachers)].append(group)
    return dict(sorted(found.items()))


def means_by_seed(groups: Sequence[Group], metric: str) -> list[float]:
    """One number for each seed: the mean over the groups that have it, which are no repetitions."""
    found: dict[int, list[float]] = defaultdict(list)
    for group in groups:
        for seed, value in group.by_seed(metric).items():
            found[seed].append(value)
    return [statistics.fmean(values) for values in found.values()]
