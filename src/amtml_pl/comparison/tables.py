"""The columns and cells of a comparison's tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from amtml_pl.comparison.estimates import of_seeds
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.system.console import printable

LEGEND = (
    "± is the standard deviation over the n seeds, of a difference the standard error of its mean. The "
    "interval is the 95 % interval of the mean, by Student's t. p is the result of a two-sided paired t-test "
    "over the n seeds that a group shares with the baseline. p (Holm) is p corrected for all groups with a p "
    "in the table. A missing p has its reason in brackets. A number from only some of the seeds has their "
    "count in brackets. Accuracies are in [0, 1]."
)


def columns(problem: Problem, metric: str) -> list[str]:
    """Return the names of the columns."""
    paired = [f"difference from {problem.baseline.name}", "p", "p (Holm)"] if problem.baseline else []
    metrics = metrics_shown(problem, metric)
    return ["group", "n", "epochs", "selection", *metrics, "95 % interval", *paired, "minutes", "budget"]


def cells(group: Group, problem: Problem, metric: str) -> list[str]:
    """Return a group's cells in the order of `columns`; numbers as mean ± deviation."""
    own = group.estimate(metric)
    return [
        group.name,
        str(len(group.runs)),
        of_budget(group, "epochs"),
        of_budget(group, "selection"),
        *(measured(group, name) for name in metrics_shown(problem, metric)),
        "" if own is None else own.interval(),
        *compared(group, problem),
        f"{minutes(group):.1f}",
        "; ".join(group.unequal) or "equal",
    ]


def metrics_shown(problem: Problem, metric: str) -> list[str]:
    """Return the shown metrics: val/acc, and the chosen one for the best and last epoch."""
    wanted = dict.fromkeys(("val/acc", metric, f"{metric.removesuffix('_last')}_last"))
    return [name for name in wanted if any(name in run.record.metrics for run in problem.runs)]


def measured(group: Group, metric: str) -> str:
    """Return mean ± standard deviation, with the number of seeds if not all have it."""
    estimate = group.estimate(metric)
    if estimate is None:
        return ""
    return f"{estimate}{of_seeds(estimate.n) if estimate.n < len(group.runs) else ''}"


def compared(group: Group, problem: Problem) -> list[str]:
    """Return the difference from the baseline, its p-value, and the corrected p-value."""
    if problem.baseline is None or (paired := group.against_baseline) is None:
        return []
    if group.is_baseline:
        return ["baseline", "", ""]
    return [paired.difference(), paired.probability(), paired.corrected()]


def of_budget(group: Group, name: str) -> str:
    """Return a field of the budgets of the group's runs, such as epochs."""
    return "/".join(sorted({str(run.record.budget.get(name, "?")) for run in group.runs}))


def minutes(group: Group) -> float:
    """Return the mean time of a fit, without building the cache."""
    return mean_seconds(group, "fit_seconds") / 60


def mean_seconds(group: Group, name: str) -> float:
    """Return the mean of a field of the runs' timing."""
    return statistics.fmean(getattr(run.record.timed(), name) for run in group.runs)


def kept_apart(problems: Sequence[Problem]) -> str:
    """Return a warning for readers of several tables; empty for one table."""
    if len(problems) < 2:
        return ""
    return f"The runs have {len(problems)} pairs of data set and student: do not compare across tables"


def one_line(text: str, escapes: Mapping[str, str]) -> str:
    """Return a cell's text on one line, with a table's special characters escaped."""
    return "".join(escapes.get(character, character) for character in printable(text, keep=""))
