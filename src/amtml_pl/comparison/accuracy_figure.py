"""The figure of each group's accuracy."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.figure import (
    COLOUR_OF_SEEDS,
    Frame,
    PageFigure,
    Trace,
    Variant,
    axis,
    colour,
    distinct_labels,
    escape_html,
    short_label,
)
from amtml_pl.comparison.groups import Problem


def accuracy_by_group(problem: Problem, metric: str) -> PageFigure:
    """Return a figure with each seed's point, each group's mean, and the teachers as lines."""
    groups = problem.groups[::-1]  # plotly.js draws from below; the best is to be above
    names = distinct_labels([group.name for group in groups])
    points = [(name, group, seed, value) for name, group in zip(names, groups, strict=True)
              for seed, value in group.by_seed(metric).items()]  # fmt: skip
    estimates = [Estimate.of([*group.by_seed(metric).values()]) for group in groups]
    texts = [f"{group.name}: {estimate} {estimate.interval()} (n = {estimate.n})"
             for group, estimate in zip(groups, estimates, strict=True)]  # fmt: skip
    seeds: Trace = {
        "type": "scatter", "mode": "markers", "name": "one seed",
        "x": [value for *_, value in points], "y": [name for name, *_ in points],
        "text": [escape_html(f"{group.name}, seed {seed}") for _, group, seed, _ in points],
        "marker": {"size": 7, "opacity": 0.55, "color": COLOUR_OF_SEEDS},
        "hovertemplate": "%{text}: %{x:.4f}<extra></extra>",
    }  # fmt: skip
    mean: Trace = {
        "type": "scatter", "mode": "markers", "name": "mean and 95 % interval",
        "x": [estimate.mean for estimate in estimates], "y": names,
        "error_x": {"type": "data", "array": [e.half_width or 0 for e in estimates], "thickness": 1.5,
                    "width": 4},
        "marker": {"size": 11, "symbol": "diamond", "color": colour(0)},
        "text": [escape_html(text) for text in texts], "hovertemplate": "%{text}<extra></extra>",
    }  # fmt: skip
    frame = Frame.of(estimates, seeds["x"])
    layout = {
        "height": 180 + 26 * len(groups),
        "xaxis": axis(metric, range=frame.range),
        "yaxis": axis("", type="category", categoryarray=names, range=[-0.7, len(names) - 0.3]),
    }
    best = problem.groups[0]
    return PageFigure(
        "accuracy",
        f"{metric} by group",
        f"{metric} of {len(groups)} groups. The best group is at the top: {best.name} with "
        f"{best.estimate(metric)}.{frame.note}",
        [Variant("", [seeds, mean, *teacher_lines(problem, metric, names)], layout)],
        is_wide=True,
    )


def teacher_lines(problem: Problem, metric: str, names: Sequence[str]) -> Iterator[Trace]:
    """Yield a line for each teacher's value, hidden until chosen in the legend."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in problem.runs:
        for teacher in run.record.teachers:
            if (value := run.record.metrics.get(f"teacher/{teacher}/{metric}")) is not None:
                found[teacher].append(value)
    for number, (teacher, values) in enumerate(found.items(), start=1):
        value = statistics.fmean(values)
        yield {"type": "scatter", "mode": "lines", "name": f"teacher {short_label(teacher)}",
               "visible": "legendonly",
               "x": [value] * len(names), "y": list(names), "line": {"dash": "dash", "color": colour(number)},
               "hovertemplate": escape_html(f"{teacher}: {value:.4f}") + "<extra></extra>"}  # fmt: skip
