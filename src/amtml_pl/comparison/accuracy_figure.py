"""The figure of each group's accuracy."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.figure import (
    COLOUR_OF_SEEDS,
    Figure,
    Frame,
    Trace,
    Variant,
    colour,
    distinct,
    named,
    plain,
    titled,
)
from amtml_pl.comparison.groups import Problem


def accuracy_by_group(problem: Problem, metric: str) -> Figure:
    """Return a figure with each seed's point, each group's mean, and the teachers as lines."""
    groups = problem.groups[::-1]  # plotly.js draws from below; the best is to be above
    names = distinct([group.name for group in groups])
    seeds: Trace = {"type": "scatter", "mode": "markers", "name": "one seed", "x": [], "y": [], "text": [],
                    "marker": {"size": 7, "opacity": 0.55, "color": COLOUR_OF_SEEDS},
                    "hovertemplate": "%{text}: %{x:.4f}<extra></extra>"}  # fmt: skip
    mean: Trace = {"type": "scatter", "mode": "markers", "name": "mean and 95 % interval",
                   "x": [], "y": names,
                   "error_x": {"type": "data", "array": [], "thickness": 1.5, "width": 4},
                   "marker": {"size": 11, "symbol": "diamond", "color": colour(0)}, "text": [],
                   "hovertemplate": "%{text}<extra></extra>"}  # fmt: skip
    estimates = [Estimate.of(list(group.by_seed(metric).values())) for group in groups]
    for name, group, estimate in zip(names, groups, estimates, strict=True):
        by_seed = group.by_seed(metric)
        seeds["x"] += by_seed.values()
        seeds["y"] += [name] * len(by_seed)
        seeds["text"] += [plain(f"{group.name}, seed {seed}") for seed in by_seed]
        mean["x"].append(estimate.mean)
        mean["error_x"]["array"].append(estimate.half_width or 0)
        mean["text"].append(plain(f"{group.name}: {estimate} {estimate.interval()} (n = {estimate.n})"))
    frame = Frame.of(estimates, seeds["x"])
    layout = {
        "height": 180 + 26 * len(groups),
        "xaxis": titled(metric, range=frame.range),
        "yaxis": titled("", type="category", categoryarray=names, range=[-0.7, len(names) - 0.3]),
    }
    best = problem.groups[0]
    return Figure(
        "accuracy",
        f"{metric} by group",
        f"{metric} of {len(groups)} groups, best above: {best.name} with {best.estimate(metric)}."
        f"{frame.note}",
        [Variant("", [seeds, mean, *teacher_lines(problem, metric, names)], layout)],
        is_wide=True,
    )


def teacher_lines(problem: Problem, metric: str, names: Sequence[str]) -> Iterator[Trace]:
    """Yield a line for each teacher's own value, hidden until chosen in the legend."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in problem.runs:
        for teacher in run.record.teachers:
            if (value := run.record.metrics.get(f"teacher/{teacher}/{metric}")) is not None:
                found[teacher].append(value)
    for number, (teacher, values) in enumerate(found.items(), start=1):
        value = statistics.fmean(values)
        yield {"type": "scatter", "mode": "lines", "name": f"teacher {named(teacher)}",
               "visible": "legendonly",
               "x": [value] * len(names), "y": list(names), "line": {"dash": "dash", "color": colour(number)},
               "hovertemplate": plain(f"{teacher}: {value:.4f}") + "<extra></extra>"}  # fmt: skip
