"""What every table of a comparison shows of a group."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from amtml_pl.comparison.estimates import of_seeds
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.system.console import printable

LEGEND = (
    "± is the standard deviation over the n seeds, the interval that of the mean by Student's t, p of the "
    "two-sided paired t-test over the seeds that a group and the baseline have in common, in brackets why "
    "there is none: one such seed, none, or differences that are all the same. A number that does not "
    "rest on all seeds of its group, or a difference on those of both, says on how many. p is not corrected "
    "for comparing many groups. Accuracies are in [0, 1]."
)


def columns(problem: Problem, metric: str) -> list[str]:
    """Name the columns: what a person reads of a group."""
    return [
        "group",
        "n",
        "epochs",
        *metrics_shown(problem, metric),
        "95 % interval",
        *([f"difference from {problem.baseline.name}", "p"] if problem.baseline else []),
        "minutes",
        "budget",
    ]


def cells(group: Group, problem: Problem, metric: str) -> list[str]:
    """Fill a cell for each of `columns`: numbers as mean ± standard deviation over seeds."""
    own = group.estimate(metric)
    return [
        group.name,
        str(len(group.runs)),
        epochs(group),
        *(measured(group, name) for name in metrics_shown(problem, metric)),
        "" if own is None else own.interval(),
        *compared(group, problem),
        f"{minutes(group):.1f}",
        "; ".join(group.unequal) or "equal",
    ]


def metrics_shown(problem: Problem, metric: str) -> list[str]:
    """Choose what any run has of val/acc and of the metric for the best and the last epoch."""
    wanted = dict.fromkeys(("val/acc", metric, f"{metric.removesuffix('_last')}_last"))
    return [name for name in wanted if any(name in run.record.metrics for run in problem.runs)]


def measured(group: Group, metric: str) -> str:
    """Write mean ± standard deviation, with how many seeds have it where not all do."""
    estimate = group.estimate(metric)
    if estimate is None:
        return ""
    return f"{estimate}{of_seeds(estimate.n) if estimate.n < len(group.runs) else ''}"


def compared(group: Group, problem: Problem) -> list[str]:
    """Write the difference from the baseline and its p-value."""
    if problem.baseline is None or group.against_baseline is None:
        return []
    if group.is_baseline:
        return ["baseline", ""]
    return [group.against_baseline.difference(), group.against_baseline.probability()]


def epochs(group: Group) -> str:
    """Write how many epochs the students were trained."""
    return "/".join(sorted({str(run.record.budget.get("epochs", "?")) for run in group.runs}))


def minutes(group: Group) -> float:
    """Average the time of a fit, without what building the cache took."""
    return mean_seconds(group, "fit_seconds") / 60


def mean_seconds(group: Group, name: str) -> float:
    """Average a field of the runs' timing."""
    return statistics.fmean(getattr(run.record.timed(), name) for run in group.runs)


def kept_apart(problems: Sequence[Problem]) -> str:
    """Say what a reader of several tables must know; nothing for one."""
    if len(problems) < 2:
        return ""
    return f"{len(problems)} problems (data set and student) are kept apart: never compare across tables"


def one_line(text: str, escapes: Mapping[str, str]) -> str:
    """Write a cell's text, which a record may have chosen, without what a table takes for its own."""
    return "".join(escapes.get(character, character) for character in printable(text, keep=""))
