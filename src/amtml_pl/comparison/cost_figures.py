"""Figures of what it took: time against accuracy, and what the cache has saved."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.figure import Figure, Variant, colour, distinct, plain, titled
from amtml_pl.comparison.found_runs import Run
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.result_figures import COLOUR_OF_SEEDS, range_of

MOST_EPOCHS = 10**9  # whatever says more is damaged


def cost_against_accuracy(problem: Problem, metric: str) -> Figure:
    """A point for each group; what the teachers took during the fit is in the fit's seconds already."""
    names = distinct([group.name for group in problem.groups])
    costs = [[seconds(run) / 60 for run in group.runs] for group in problem.groups]
    accuracies = [Estimate.of(list(group.by_seed(metric).values())) for group in problem.groups]
    told = [
        plain(
            f"{group.name}: {estimate}, {statistics.fmean(cost):.1f} minutes, "
            f"{mean_time(group, 'teacher_seconds'):.1f} s of them for the teachers' outputs, "
            f"{mean_time(group, 'cache_build_seconds'):.1f} s to build the cache"
        )
        for group, estimate, cost in zip(problem.groups, accuracies, costs, strict=True)
    ]
    minutes = [statistics.fmean(cost) for cost in costs]
    trace = {
        "type": "scatter",
        "mode": "markers+text" if len(names) <= 12 else "markers",
        "x": minutes,
        "y": [estimate.mean for estimate in accuracies],
        "error_y": {
            "type": "data",
            "array": [e.half_width or 0 for e in accuracies],
            "thickness": 1,
            "width": 3,
            "color": COLOUR_OF_SEEDS,
        },
        "marker": {"size": 10, "color": [colour(number) for number in range(len(names))]},
        "text": names,
        "textposition": ["middle left" if x > max(minutes) / 2 else "middle right" for x in minutes],
        "customdata": told,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    layout = {
        "xaxis": titled("minutes of a run", rangemode="tozero"),
        "yaxis": titled(metric, range=range_of(problem.groups, metric)),
        "showlegend": False,
    }
    return Figure(
        "cost",
        f"Cost against {metric}",
        f"Mean minutes of a run (its fit, the waiting for the teachers included, and building what the cache "
        f"lacked) against its mean {metric} with the 95 % interval. Above and left is better.",
        [Variant("", [trace], layout)],
    )


def seconds(run: Run) -> float:
    """What a run took; `timing.teacher_seconds` is part of `timing.fit_seconds`."""
    return run.timing["fit_seconds"] + run.timing.get("cache_build_seconds", 0.0)


def mean_time(group: Group, name: str) -> float:
    """A time, over the runs of a group that have it; 0 where none has."""
    return statistics.fmean([run.timing[name] for run in group.runs if name in run.timing] or [0.0])


def cache_savings(problem: Problem) -> Figure | None:
    """Passes of the teachers over the training split: those that were made and those a live run makes."""
    cached = [
        group for group in problem.groups if group.first.teachers and all(map(tells_passes, group.runs))
    ]
    if not cached:
        return None
    names = distinct([group.name for group in cached])
    made = [sum(sum((run.teacher_passes or {}).values()) for run in group.runs) for group in cached]
    live = [sum(run.budget["epochs"] * len(run.teachers) for run in group.runs) for group in cached]
    saved = [max(0.0, asked - paid) for asked, paid in zip(live, made, strict=True)]
    bars = [
        {"type": "bar", "orientation": "h", "name": name, "y": names, "x": values,
         "marker": {"color": colour(hue)},
         "hovertemplate": f"%{{y}}: %{{x:.4g}} passes {name}<extra></extra>"}
        for name, values, hue in (("made", made, 1), ("saved", saved, 2))
    ]  # fmt: skip
    layout = {
        "barmode": "stack",
        "height": 180 + 24 * len(names),
        "xaxis": titled("passes over the training split, all teachers and seeds"),
        "yaxis": {"automargin": True, "type": "category", "autorange": "reversed"},
    }
    return Figure(
        "cache",
        "What the cache has saved",
        f"{sum(made):,.4g} passes were made where asking the teachers in every epoch would have made "
        f"{sum(live):,.4g}. {time_saved(problem, cached)}",
        [Variant("", bars, layout)],
    )


def tells_passes(run: Run) -> bool:
    """Whether a run says how often its teachers saw the training split, and how many epochs it had."""
    return run.teacher_passes is not None and epochs_of(run) is not None


def epochs_of(run: Run) -> int | None:
    """How many epochs a run had; None where its record has no such number."""
    epochs = run.budget.get("epochs")
    return epochs if type(epochs) is int and 0 < epochs < MOST_EPOCHS else None


def time_saved(problem: Problem, cached: Sequence[Group]) -> str:
    """The seconds that live runs of the same teachers have measured per epoch, times the cached epochs.

    Only from live runs on the same pixels: a time that nobody has measured is not told.
    """
    per_epoch: dict[tuple[str, ...], list[float]] = {}
    for run in problem.runs:
        epochs = epochs_of(run)
        if run.facts.get("teacher_source") == "live" and epochs is not None:
            per_epoch.setdefault(run.teachers, []).append(run.timing.get("teacher_seconds", 0.0) / epochs)
    known = [run for group in cached for run in group.runs if run.teachers in per_epoch]
    if not known:
        return "How many seconds that saved is not told: no live run of these teachers was measured."
    live = sum(statistics.fmean(per_epoch[run.teachers]) * run.budget["epochs"] for run in known)
    paid = sum(
        run.timing.get("teacher_seconds", 0.0) + run.timing.get("cache_build_seconds", 0.0) for run in known
    )
    return (
        f"Live runs of the same teachers waited {live / 60:,.1f} minutes for as many epochs as {len(known)} "
        f"cached runs have, which waited {paid / 60:,.1f} minutes, building included."
    )
