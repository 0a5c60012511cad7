"""The figure of time against accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.figure import (
    COLOUR_OF_SEEDS,
    Figure,
    Frame,
    Variant,
    colour,
    distinct,
    plain,
    titled,
)
from amtml_pl.comparison.groups import Problem, is_smaller_better
from amtml_pl.comparison.tables import mean_seconds, minutes

MOST_LABELS = 12


def cost_against_accuracy(problem: Problem, metric: str) -> Figure:
    """Return a figure with a point for each group: time of a fit, and metric.

    The time includes waiting for teachers. Building the cache is one sum for all runs of a sweep, as any of
    them may have built it.
    """
    costs = [minutes(group) for group in problem.groups]
    reached = [Estimate.of(list(group.by_seed(metric).values())) for group in problem.groups]
    names = distinct([group.name for group in problem.groups])
    labelled = worth_a_label(problem, costs)
    texts = [
        plain(
            f"{group.name}: {estimate}, {cost:.1f} minutes, "
            f"{mean_seconds(group, 'teacher_seconds'):.1f} s of them for the teachers' outputs"
        )
        for group, estimate, cost in zip(problem.groups, reached, costs, strict=True)
    ]
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": costs,
        "y": [estimate.mean for estimate in reached],
        "error_y": {
            "type": "data",
            "array": [e.half_width or 0 for e in reached],
            "thickness": 1,
            "width": 3,
            "color": COLOUR_OF_SEEDS,
        },
        "marker": {"size": 10, "color": [colour(number) for number in range(len(names))]},
        "text": [name if number in labelled else "" for number, name in enumerate(names)],
        "textposition": ["middle left" if x > max(costs) / 2 else "middle right" for x in costs],
        "customdata": texts,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    frame = Frame.of(reached)
    layout = {
        "xaxis": titled("minutes of a fit", rangemode="tozero"),
        "yaxis": titled(metric, range=frame.range),
        "showlegend": False,
    }
    better = "Below" if is_smaller_better(metric) else "Above"
    total = sum(run.record.timed().cache_build_seconds for run in problem.runs)
    building = (
        f" Not in the points: the {total / 60:,.1f} minutes that these runs took to build what the cache "
        "lacked, whichever came first."
    )
    some = " Named are the best, the baseline and those that none beats in both."
    return Figure(
        "cost",
        f"Cost against {metric}",
        f"Mean minutes of a fit, the waiting for the teachers included, against its mean {metric} with the "
        f"95 % interval. {better} and left is better.{frame.note}{some if len(labelled) < len(names) else ''}"
        f"{building if total else ''}",
        [Variant("", [trace], layout)],
    )


def worth_a_label(problem: Problem, costs: Sequence[float]) -> set[int]:
    """Return the numbers of groups with a label: of many only best, baseline and unbeaten.

    Groups are in order of the metric, best first: one that is not cheaper than all before it is beaten.
    """
    groups = problem.groups
    if len(groups) <= MOST_LABELS:
        return {*range(len(groups))}
    unbeaten = {n for n, cost in enumerate(costs) if cost < min(costs[:n], default=math.inf)}
    return {0, *unbeaten, *(number for number, group in enumerate(groups) if group.is_baseline)}
