"""Write a comparison as CSV that a spreadsheet opens without evaluating anything."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.tables import minutes, of_budget, one_line

FORMULA = ("=", "+", "-", "@")  # a cell that begins so is taken for one


def csv_of_runs(problems: Sequence[Problem]) -> str:
    """Return a line per run with all its metrics and times."""
    lines = []
    for problem, group in [(each, group) for each in problems for group in each.groups]:
        for run in group.runs:
            own = {**of_group(problem, group), "seed": run.record.seed, "folder": str(run.folder)}
            # Again at the end: a metric's name must not replace these columns.
            lines.append({**own, **run.record.metrics, **run.record.timed().model_dump(), **own})
    return comma_separated(lines)


def csv_of_groups(problems: Sequence[Problem], metric: str) -> str:
    """Return a line per group with its statistics."""
    lines = []
    for problem, group in [(each, group) for each in problems for group in each.groups]:
        own, paired = group.estimate(metric), group.against_baseline
        lines.append(
            {
                **of_group(problem, group),
                "metric": metric,
                "n": len(group.runs),
                "epochs": of_budget(group, "epochs"),
                "selection": of_budget(group, "selection"),
                "mean": own and own.mean,
                "deviation": own and own.deviation,
                "half_width_95": own and own.half_width,
                "baseline": problem.baseline.name if problem.baseline else "",
                "common_seeds": paired and paired.n,
                "difference": paired and paired.mean,
                "standard_error": paired and paired.error,
                "p": paired and paired.p,
                "p_holm": paired and paired.holm,
                "minutes": minutes(group),
                "unequal_budget": "; ".join(group.unequal),
            }
        )
    return comma_separated(lines)


def of_group(problem: Problem, group: Group) -> dict[str, Any]:
    """Return the columns that identify a group."""
    return {
        "dataset": problem.dataset.name,
        "digest": problem.dataset.digest[:8],
        "group": group.name,
        "experiment": group.first.experiment,
        "method": group.first.method,
        "settings": " ".join(group.first.settings),
    }


def comma_separated(lines: Iterable[Mapping[str, Any]]) -> str:
    """Return a CSV table with the columns of all lines."""
    rows = [{harmless(name): harmless(cell) for name, cell in line.items()} for line in lines]
    text = io.StringIO()
    table = csv.DictWriter(
        text, list(dict.fromkeys(name for row in rows for name in row)), restval="", lineterminator="\n"
    )
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def harmless(cell: object) -> object:
    """Return a cell that a spreadsheet does not take for a formula, such as ``+coef.kd=1``."""
    if not isinstance(cell, str):
        return cell
    text = one_line(cell, {})  # a carriage return would begin another row
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text
