"""A comparison as CSV, which a spreadsheet opens without computing anything."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.tables import epochs, minutes, one_line

FORMULA = ("=", "+", "-", "@")  # what a spreadsheet takes for the beginning of one


def csv_of_runs(problems: Sequence[Problem]) -> str:
    """Write a line per run with all its metrics and times."""
    lines = []
    for problem, group in [(each, group) for each in problems for group in each.groups]:
        for run in group.runs:
            own = {**of_group(problem, group), "seed": run.record.seed, "folder": str(run.folder)}
            # Again at the end: what a run calls its numbers does not replace what tells lines apart.
            lines.append({**own, **run.record.metrics, **run.record.timed().model_dump(), **own})
    return comma_separated(lines)


def csv_of_groups(problems: Sequence[Problem], metric: str) -> str:
    """Write a line per group with its statistics."""
    lines = []
    for problem, group in [(each, group) for each in problems for group in each.groups]:
        own, paired = group.estimate(metric), group.against_baseline
        lines.append(
            {
                **of_group(problem, group),
                "metric": metric,
                "n": len(group.runs),
                "epochs": epochs(group),
                "mean": own and own.mean,
                "deviation": own and own.deviation,
                "half_width_95": own and own.half_width,
                "baseline": problem.baseline.name if problem.baseline else "",
                "common_seeds": paired and paired.n,
                "difference": paired and paired.mean,
                "p": paired and paired.p,
                "minutes": minutes(group),
                "unequal_budget": "; ".join(group.unequal),
            }
        )
    return comma_separated(lines)


def of_group(problem: Problem, group: Group) -> dict[str, Any]:
    """Return what says which group a line belongs to."""
    return {
        "dataset": problem.dataset.name,
        "digest": problem.dataset.digest[:8],
        "group": group.name,
        "experiment": group.first.experiment,
        "method": group.first.method,
        "settings": " ".join(group.first.settings),
    }


def comma_separated(lines: Iterable[Mapping[str, Any]]) -> str:
    """Write a table whose columns are all that any line has."""
    rows = [{harmless(name): harmless(cell) for name, cell in line.items()} for line in lines]
    text = io.StringIO()
    table = csv.DictWriter(
        text, list(dict.fromkeys(name for row in rows for name in row)), restval="", lineterminator="\n"
    )
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


def harmless(cell: object) -> object:
    """Keep a spreadsheet from taking a text such as ``+coef.kd=1`` for a formula."""
    if not isinstance(cell, str):
        return cell
    text = one_line(cell, {})  # a carriage return would begin another row
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text
