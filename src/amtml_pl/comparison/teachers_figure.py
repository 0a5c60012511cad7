"""The figure of accuracy by number of teachers, as the paper's Fig. 3."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.families import Varied, families_of
from amtml_pl.comparison.figure import Figure
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.lines import Line, drawn

VARIED = Varied(settings=("teacher",), facts=())


def accuracy_by_teachers(problem: Problem, metric: str) -> Figure | None:
    """Return a figure with a line for each family that varies the number of teachers."""
    taught = [group for group in problem.groups if group.first.record.teachers]
    lines = []
    # The order in which teachers were typed does not matter here.
    for family in families_of(taught, VARIED, lambda run: tuple(sorted(run.record.teachers))):
        choices: dict[int, list[Group]] = defaultdict(list)
        for teachers, group in sorted(family.groups.items(), key=lambda item: len(item[0])):
            choices[len(teachers)].append(group)
        if len(choices) > 1:
            line = Line(
                family.name,
                {count: Estimate.of(means_by_seed(groups, metric)) for count, groups in choices.items()},
                {count: f", {len(groups)} choices" for count, groups in choices.items() if len(groups) > 1},
            )
            lines.append(line)
    if not lines:
        return None
    counts = sorted({count for line in lines for count in line.points})
    variant, frame = drawn("", lines, metric, "number of teachers", {"tickvals": counts})
    return Figure(
        "teachers",
        f"{metric} by number of teachers",
        f"Mean {metric} with its 95 % interval over the seeds for {', '.join(map(str, counts))} teachers; of "
        f"several choices of as many teachers the mean for each seed.{frame.note}",
        [variant],
    )


def means_by_seed(groups: Sequence[Group], metric: str) -> list[float]:
    """Return one mean for each seed, over the groups that have it."""
    found: dict[int, list[float]] = defaultdict(list)
    for group in groups:
        for seed, value in group.by_seed(metric).items():
            found[seed].append(value)
    return [statistics.fmean(values) for values in found.values()]
