"""The figure of time against accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

from amtml_pl.comparison.estimates import Estimate, can_be_averaged
from amtml_pl.comparison.figure import (
    COLOUR_OF_SEEDS,
    COLOURS,
    LEGEND_BESIDE,
    Frame,
    PageFigure,
    Trace,
    Variant,
    axis,
    colour,
    distinct_labels,
    escape_html,
)
from amtml_pl.comparison.groups import Problem, is_smaller_better
from amtml_pl.comparison.tables import mean_seconds, minutes

MOST_LABELS = 12
SYMBOLS = ("circle", "square", "diamond", "cross")  # for more groups than colours


def cost_against_accuracy(problem: Problem, metric: str) -> PageFigure:
    """Return a figure with a point for each group: time of a fit, and metric.

    The time includes waiting for teachers. Building the cache is one sum for all runs of a sweep, as any of
    them may have built it.
    """
    costs = [minutes(group) for group in problem.groups]
    estimates = [Estimate.of([*group.by_seed(metric).values()]) for group in problem.groups]
    names = distinct_labels([group.name for group in problem.groups])
    labelled = worth_a_label(problem, costs)
    texts = [
        f"{group.name}: {estimate}, {cost:.1f} minutes, "
        f"including {mean_seconds(group, 'teacher_seconds'):.1f} s for teacher outputs"
        for group, estimate, cost in zip(problem.groups, estimates, costs, strict=True)
    ]
    traces: list[Trace] = [
        {
            "type": "scatter", "mode": "markers", "name": name, "x": [cost], "y": [estimate.mean],
            "error_y": {"type": "data", "array": [estimate.half_width or 0], "thickness": 1, "width": 3,
                        "color": COLOUR_OF_SEEDS},
            "marker": {"size": 10, "color": colour(number), "symbol": symbol(number)},
            "showlegend": number in labelled,
            "hovertemplate": f"{escape_html(text)}<extra></extra>",
        }
        for number, (name, cost, estimate, text) in enumerate(
            zip(names, costs, estimates, texts, strict=True)
        )
    ]  # fmt: skip
    frame = Frame.of(estimates)
    layout = {
        "xaxis": axis("minutes of a fit", rangemode="tozero"),
        "yaxis": axis(metric, range=frame.range),
        "showlegend": True,
        "legend": LEGEND_BESIDE,
    }
    better = "Lower" if is_smaller_better(metric) else "Higher"
    some = " The legend has the best group, the baseline, and groups that no other one beats in both values."
    return PageFigure(
        "cost",
        f"Cost against {metric}",
        f"Mean minutes of a fit, including the time for teacher outputs, and mean {metric} with its 95 % "
        f"interval. {better} and further left is better.{frame.note}"
        f"{some if len(labelled) < len(names) else ''}{cost_of_teachers(problem)}",
        [Variant("", traces, layout)],
        is_wide=True,
    )


def symbol(number: int) -> str:
    """Return the symbol of a group, by its number from 0."""
    return SYMBOLS[number // len(COLOURS) % len(SYMBOLS)]


def worth_a_label(problem: Problem, costs: Sequence[float]) -> set[int]:
    """Return the numbers of groups with a label: of many only best, baseline and unbeaten.

    Groups are in order of the metric, best first: one that is not cheaper than all before it is beaten.
    """
    groups = problem.groups
    if len(groups) <= MOST_LABELS:
        return {*range(len(groups))}
    unbeaten = {n for n, cost in enumerate(costs) if cost < min(costs[:n], default=math.inf)}
    return {0, *unbeaten, *(number for number, group in enumerate(groups) if group.is_baseline)}


def cost_of_teachers(problem: Problem) -> str:
    """Return sentences on the building of the cache, and the passes that it saved."""
    records = [run.record for run in problem.runs]
    made, live = 0.0, 0
    for each in records:
        epochs = each.budget.get("epochs")
        if each.cache and type(epochs) is int and can_be_averaged(epochs):
            made += sum(each.cache.teacher_passes.values())
            live += epochs * len(each.teachers)
    built = sum(each.timed().cache_build_seconds for each in records) / 60
    building = f" The minutes do not include the {built:,.1f} minutes for building the cache of all runs."
    passes = (
        f" The cached runs passed the training split {made:,.6g} times through a teacher. With live teachers "
        f"it would be {live:,} times."
    )
    return f"{building if built else ''}{passes if live else ''}"
