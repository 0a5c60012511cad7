"""Figures of the training: curves, and the teachers' weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amtml_pl.comparison.curves import MeanCurve, WeightsByClass
from amtml_pl.comparison.figure import (
    COLOURS,
    DASHES,
    LEGEND_BESIDE,
    PageFigure,
    Trace,
    Variant,
    axis,
    colour,
    distinct_labels,
    short_label,
)
from amtml_pl.comparison.groups import Group, Problem

GroupCurves = Sequence[Mapping[str, MeanCurve]]
SHOWN_AT_FIRST = 6
DARK_BLUES = [[0, "#16202e"], [1, "#3b7dd8"]]  # white numbers are legible on all of them
MANY = 20  # classes: more are sorted, over the whole page and without gaps


def training_curves(problem: Problem, curves: GroupCurves) -> PageFigure:
    """Return a figure with a line for each group, of a chosen value per epoch."""
    metrics = dict.fromkeys(name for of_group in curves for name in of_group)
    names = distinct_labels([group.name for group in problem.groups])
    variants = []
    for metric in sorted(metrics, key=lambda name: (name != "val/acc", name)):
        traces: list[Trace] = []
        for number, (name, of_group) in enumerate(zip(names, curves, strict=True)):
            if metric in of_group:
                is_shown = number < SHOWN_AT_FIRST or problem.groups[number].is_baseline
                traces += with_range(name, of_group[metric], number, visible=is_shown)
        layout = {"xaxis": axis("epoch"), "yaxis": axis(metric), "height": 480, "showlegend": True,
                  "legend": LEGEND_BESIDE}  # fmt: skip
        variants.append(Variant(metric, traces, layout))
    return PageFigure(
        "curves",
        "Training curves",
        "Mean over the seeds of a group, and the range from the smallest to the largest value. A click on "
        "the legend shows or hides a group.",
        variants,
        choice="metric",
        is_wide=True,
    )


def with_range(name: str, curve: MeanCurve, number: int, *, visible: bool) -> Iterator[Trace]:
    """Yield a line, and the area between smallest and largest seed if they differ."""
    shared = {"type": "scatter", "mode": "lines", "legendgroup": name, "visible": visible or "legendonly"}
    x, dash = list(curve.epochs), DASHES[number // len(COLOURS) % len(DASHES)]
    yield {**shared, "name": name, "x": x, "y": list(curve.mean),
           "line": {"color": colour(number), "dash": dash, "width": 2},
           "hovertemplate": f"{name}, epoch %{{x}}: %{{y:.4g}}<extra></extra>"}  # fmt: skip
    if curve.low != curve.high:
        yield {**shared, "name": f"{name}: range", "x": x + x[::-1],
               "y": [*curve.high, *reversed(curve.low)], "fill": "toself", "fillcolor": f"{colour(number)}26",
               "line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}  # fmt: skip


def weights_over_time(problem: Problem, curves: GroupCurves) -> PageFigure:
    """Return a figure of each teacher's mean weight by epoch, for groups that change them."""
    layout = {"xaxis": axis("epoch"), "yaxis": axis("mean weight", range=[0, 1.02]), "showlegend": True}
    variants = []
    for group, of_group in zip(problem.groups, curves, strict=True):
        weights = {name.removeprefix("weight/"): curve for name, curve in of_group.items()
                   if name.startswith("weight/")}  # fmt: skip
        if len(weights) > 1 and any(len({*curve.low, *curve.high}) > 1 for curve in weights.values()):
            traces = [trace for number, (teacher, curve) in enumerate(weights.items())
                      for trace in with_range(short_label(teacher), curve, number, visible=True)]  # fmt: skip
            variants.append(Variant(group.name, traces, layout))
    return PageFigure(
        "weights",
        "Teacher weights by epoch",
        "Mean weight of each teacher over the training images of an epoch, and the range over the seeds.",
        variants,
        choice="group",
    )


def weights_by_class(found: Sequence[tuple[Group, WeightsByClass]]) -> PageFigure:
    """Return a figure with a heat map of teachers and classes, of a chosen group."""
    has_many = any(len(weights.classes) > MANY for _, weights in found)
    order = " Classes are sorted by the teacher with the largest weight, then by that weight."
    return PageFigure(
        "classes",
        "Teacher weights by class",
        f"Mean weight of each teacher on the training images of each class in the last epoch."
        f"{order if has_many else ''}",
        [Variant(group.name, *class_map(weights)) for group, weights in found],
        choice="group",
        is_wide=has_many,
    )


def class_map(weights: WeightsByClass) -> tuple[Sequence[Trace], Mapping[str, Any]]:
    """Return a heat map with a column for each class; many classes are sorted."""
    classes, teachers = distinct_labels(weights.classes), distinct_labels(weights.teachers)
    columns = list(zip(*weights.weights, strict=True))
    order, is_many = [*range(len(classes))], len(classes) > MANY
    if is_many:
        order.sort(key=lambda number: (columns[number].index(max(columns[number])), -max(columns[number])))
    trace = {"type": "heatmap", "x": [classes[number] for number in order], "y": teachers,
             "z": [[row[number] for number in order] for row in weights.weights],
             "colorscale": "Viridis" if is_many else DARK_BLUES, "zmin": 0, "zmax": 1,
             "xgap": 0 if is_many else 1, "ygap": 1, "colorbar": {"title": {"text": "weight"}},
             "texttemplate": "" if is_many else "%{z:.2f}", "textfont": {"color": "white"},
             "hovertemplate": "%{y} on %{x}: %{z:.3f}<extra></extra>"}  # fmt: skip
    layout = {"xaxis": axis("class", type="category"),
              "yaxis": axis("", type="category", autorange="reversed"),
              "height": 220 + 34 * len(teachers)}  # fmt: skip
    return [trace], layout
