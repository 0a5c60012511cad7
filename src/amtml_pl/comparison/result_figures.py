"""Figures of what was reached: by group, by number of teachers, by temperature and coefficients."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.figure import Figure, Trace, Variant, colour, distinct, named, plain, titled
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.overrides import key_of


def accuracy_by_group(problem: Problem, metric: str) -> Figure:
    """Each seed as a point, each group's mean with its 95 % interval, and the teachers as lines."""
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
    for name, group in zip(names, groups, strict=True):
        by_seed = group.by_seed(metric)
        estimate = Estimate.of(list(by_seed.values()))
        seeds["x"] += by_seed.values()
        seeds["y"] += [name] * len(by_seed)
        seeds["text"] += [plain(f"{group.name}, seed {seed}") for seed in by_seed]
        mean["x"].append(estimate.mean)
        mean["error_x"]["array"].append(estimate.half_width or 0)
        mean["text"].append(plain(f"{group.name}: {estimate} {estimate.interval()} (n = {estimate.n})"))
    layout = {
        "height": 180 + 26 * len(groups),
        "xaxis": titled(metric, range=range_of(groups, metric)),
        "yaxis": titled("", type="category", categoryarray=names, range=[-0.7, len(names) - 0.3]),
    }
    best = problem.groups[0]
    return Figure(
        "accuracy",
        f"{metric} by group",
        f"{metric} of {len(groups)} groups, best above: {best.name} with {best.estimate(metric)}.",
        [Variant("", [seeds, mean, *teacher_lines(problem, metric, names)], layout)],
    )


COLOUR_OF_SEEDS = "#8a94a3"


def range_of(groups: Sequence[Group], metric: str) -> list[float]:
    """What an axis shows at first: every seed, and every interval but those of two seeds, which are vast."""
    ends = []
    for group in groups:
        values = list(group.by_seed(metric).values())
        estimate = Estimate.of(values)
        width = (estimate.half_width or 0.0) if estimate.n > 2 else 0.0
        ends += [*values, estimate.mean - width, estimate.mean + width]
    margin = 0.05 * (max(ends) - min(ends)) or 0.01
    return [min(ends) - margin, max(ends) + margin]


def teacher_lines(problem: Problem, metric: str, names: Sequence[str]) -> Iterator[Trace]:
    """The teachers' own numbers, where the runs have them; hidden until chosen in the legend."""
    found: dict[str, list[float]] = defaultdict(list)
    for run in problem.runs:
        for teacher in run.teachers:
            if (value := run.metrics.get(f"teacher/{teacher}/{metric}")) is not None:
                found[teacher].append(value)
    for number, (teacher, values) in enumerate(found.items(), start=1):
        value = statistics.fmean(values)
        yield {"type": "scatter", "mode": "lines", "name": f"teacher {named(teacher)}",
               "visible": "legendonly",
               "x": [value] * len(names), "y": list(names), "line": {"dash": "dash", "color": colour(number)},
               "hovertemplate": plain(f"{teacher}: {value:.4f}") + "<extra></extra>"}  # fmt: skip


def accuracy_by_teachers(problem: Problem, metric: str) -> Figure | None:
    """A line for each method whose runs have different numbers of teachers."""
    lines: dict[str, dict[int, list[Group]]] = defaultdict(lambda: defaultdict(list))
    for group in problem.groups:
        if count := len(group.first.teachers):
            lines[without(group, ("teacher",))][count].append(group)
    shown = {name: by_count for name, by_count in lines.items() if len(by_count) > 1}
    if not shown:
        return None
    traces = []
    for number, (name, by_count) in enumerate(sorted(shown.items())):
        points = {
            count: Estimate.of(means_by_seed(groups, metric)) for count, groups in sorted(by_count.items())
        }
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": named(name),
                "x": list(points),
                "y": [estimate.mean for estimate in points.values()],
                "error_y": {
                    "type": "data",
                    "array": [e.half_width or 0 for e in points.values()],
                    "width": 4,
                },
                "line": {"color": colour(number)},
                "text": [
                    f"{estimate} (n = {estimate.n}{of_choices(by_count[count])})"
                    for count, estimate in points.items()
                ],
                "hovertemplate": f"{plain(name)}, %{{x}} teachers: %{{text}}<extra></extra>",
            }
        )
    counts = sorted({count for by_count in shown.values() for count in by_count})
    layout = {"xaxis": titled("number of teachers", tickvals=counts), "yaxis": titled(metric)}
    return Figure(
        "teachers",
        f"{metric} by number of teachers",
        f"Mean {metric} with its 95 % interval over the seeds for {', '.join(map(str, counts))} teachers; of "
        "several choices of as many teachers the mean for each seed.",
        [Variant("", traces, {**layout, "showlegend": True})],
    )


def means_by_seed(groups: Sequence[Group], metric: str) -> list[float]:
    """One number for each seed: the mean over the groups that have it, which are no repetitions."""
    found: dict[int, list[float]] = defaultdict(list)
    for group in groups:
        for seed, value in group.by_seed(metric).items():
            found[seed].append(value)
    return [statistics.fmean(values) for values in found.values()]


def of_choices(groups: Sequence[Group]) -> str:
    """How many choices of teachers a point is the mean of."""
    return f", {len(groups)} choices" if len(groups) > 1 else ""


def accuracy_by_temperature(problem: Problem, metric: str) -> Figure | None:
    """A heat map over temperatures and coefficients, for each method whose runs differ in both."""
    families: dict[str, list[Group]] = defaultdict(list)
    for group in problem.groups:
        if group.first.temperature is not None and group.first.coefficients:
            families[without(group, ("temperature", "coef"))].append(group)
    variants = [variant for name, groups in sorted(families.items())
                if (variant := temperature_map(name, groups, metric))]  # fmt: skip
    if not variants:
        return None
    return Figure(
        "temperature",
        f"{metric} by temperature and coefficients",
        f"Mean {metric} over the seeds for each pair of a temperature and the coefficients that were varied.",
        variants,
        choice="method",
    )


def temperature_map(name: str, groups: Sequence[Group], metric: str) -> Variant | None:
    """Of groups that differ in nothing but temperature and coefficients.

    None where one of the two is fixed, or there are so few pairs that no table can be seen.
    """
    terms = dict.fromkeys(term for group in groups for term in group.first.coefficients)
    varied = [term for term in terms if len({group.first.coefficients.get(term) for group in groups}) > 1]
    temperatures = sorted({float(group.first.temperature or 0) for group in groups})
    weights = sorted({weights_of(group, varied) for group in groups})
    by_cell: dict[tuple[float, tuple[float, ...]], list[float]] = defaultdict(list)
    for group in groups:
        cell = float(group.first.temperature or 0), weights_of(group, varied)
        by_cell[cell] += group.by_seed(metric).values()
    if len(temperatures) < 2 or len(weights) < 2 or len(by_cell) < 3:
        return None
    z = [
        [Estimate.of(by_cell[t, w]).mean if (t, w) in by_cell else None for t in temperatures]
        for w in weights
    ]
    labels = [
        ", ".join(f"{plain(term)} {value:g}" for term, value in zip(varied, w, strict=True)) for w in weights
    ]
    texts = [["" if cell is None else f"{cell:.4f}" for cell in row] for row in z]
    trace = {"type": "heatmap", "x": [f"{t:g}" for t in temperatures], "y": labels, "z": z, "text": texts,
             "texttemplate": "%{text}", "colorscale": "Viridis",
             "colorbar": {"title": {"text": plain(metric)}},
             "hovertemplate": "T = %{x}, %{y}: %{z:.4f}<extra></extra>", "xgap": 2, "ygap": 2}  # fmt: skip
    layout = {
        "xaxis": titled("temperature", type="category"),
        "yaxis": titled("coefficient", type="category"),
    }
    return Variant(name, [trace], layout)


def weights_of(group: Group, terms: Sequence[str]) -> tuple[float, ...]:
    """The coefficients of some terms; 0 for a term that the group lacks."""
    return tuple(group.first.coefficients.get(term, 0.0) for term in terms)


def without(group: Group, keys: Sequence[str]) -> str:
    """What a group is, but for the overrides of some keys and what lies below them."""
    own = (word for word in group.first.settings if key_of(word).partition(".")[0] not in keys)
    what = group.first.method or group.first.experiment
    return " ".join([what, *own])
