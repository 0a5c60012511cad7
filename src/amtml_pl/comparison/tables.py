"""The columns and cells of a comparison's tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
# Columns that many studies need not show: equal for all groups, or empty because they have one seed.
SAME_FOR_MANY = ("n", "epochs", "selection", "budget", "95 % interval", "p (Holm)")


@dataclass(frozen=True)
class ShownTable:
    """A table of a problem, with a row for each group.

    Attributes:
        columns: their names, without those that are equal in all rows.
        rows: the cells of each group.
        equal: what such columns say; empty for a table with one row.
        caption: what the numbers are, if the columns do not say it.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    equal: str
    caption: str = ""

    @classmethod
    def of(
        cls, rows: Sequence[Mapping[str, str]], may_be_equal: Sequence[str], caption: str = ""
    ) -> ShownTable:
        """Return the table of some rows, without the named columns that are equal."""
        equal = [
            name
            for name in may_be_equal
            if name in rows[0] and len(rows) > 1 and len({row[name] for row in rows}) == 1
        ]
        shown = [name for name in rows[0] if name not in equal]
        same = ", ".join(f"{name} {rows[0][name]}" for name in equal if rows[0][name])
        sentence = f"Equal in all groups: {same}." if same else ""
        return cls(shown, [[row[name] for name in shown] for row in rows], sentence, caption)


def leaderboard(problem: Problem, metric: str) -> ShownTable:
    """Return the main table of a problem, best group first; numbers are mean ± deviation."""
    return ShownTable.of([cells(group, problem, metric) for group in problem.groups], SAME_FOR_MANY)


def cells(group: Group, problem: Problem, metric: str) -> dict[str, str]:
    """Return the cells of a group by the names of the columns."""
    own = group.estimate(metric)
    return {
        "group": group.name,
        "n": str(len(group.runs)),
        "epochs": of_budget(group, "epochs"),
        "selection": of_budget(group, "selection"),
        **{name: measured(group, name) for name in metrics_shown(problem, metric)},
        "95 % interval": "" if own is None else own.interval(),
        **compared(group, problem),
        "minutes": f"{minutes(group):.1f}",
        "budget": "; ".join(group.unequal) or "equal",
    }


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


def compared(group: Group, problem: Problem) -> dict[str, str]:
    """Return the difference from the baseline, its p-value, and the corrected p-value."""
    if problem.baseline is None or (paired := group.against_baseline) is None:
        return {}
    values = ("baseline", "", "")
    if not group.is_baseline:
        values = (paired.difference(), paired.probability(), paired.corrected())
    return dict(zip((f"difference from {problem.baseline.name}", "p", "p (Holm)"), values, strict=True))


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
