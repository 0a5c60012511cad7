"""Write a comparison as one HTML page that needs no server and no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from amtml_pl.comparison.accuracy_figure import accuracy_by_group
from amtml_pl.comparison.adaptivity_figure import weights_within_classes
from amtml_pl.comparison.adaptivity_table import LEGEND as ADAPTIVITY_LEGEND
from amtml_pl.comparison.adaptivity_table import Adapted, adapted_groups, adaptivity_table, constant
from amtml_pl.comparison.answer import sentences
from amtml_pl.comparison.cost_figure import cost_against_accuracy
from amtml_pl.comparison.curves import curves_of, weights_by_class_of
from amtml_pl.comparison.evaluated_runs import evaluated
from amtml_pl.comparison.figure import PageFigure
from amtml_pl.comparison.found_runs import LeftOut, relative_name
from amtml_pl.comparison.groups import Problem
from amtml_pl.comparison.mixture_table import LEGEND as MIXTURES_LEGEND
from amtml_pl.comparison.mixture_table import mixture_tables
from amtml_pl.comparison.sweep_figure import metric_by_swept_setting
from amtml_pl.comparison.tables import LEGEND, leaderboard
from amtml_pl.comparison.training_figures import training_curves, weights_by_class, weights_over_time

# Columns of text; the cells of all others sort as numbers.
NO_NUMBERS = ("group", "selection", "budget")


def page(
    problems: Sequence[Problem],
    left_out: Sequence[LeftOut],
    folder: Path,
    metric: str,
    broken: list[tuple[Path, str]],
) -> str:
    """Return the HTML page.

    Args:
        problems: a section each.
        left_out: runs to list at the end.
        folder: the searched folder.
        metric: ranks and compares the groups.
        broken: files of runs that cannot be read are added here, with the reason.
    """
    environment = Environment(
        loader=PackageLoader("amtml_pl.comparison", "template"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    sections = [section(problem, metric, broken) for problem in problems]
    drawn = {f"{figure.kind}-{number}": [asdict(variant) for variant in figure.variants]
             for number, own in enumerate(sections) for figure in own["figures"]}  # fmt: skip
    return environment.get_template("page.html").render(
        folder=str(folder),
        metric=metric,
        runs=sum(len(problem.runs) for problem in problems),
        sections=sections,
        left_out=[{"folder": relative_name(out.folder, folder), "reason": out.reason} for out in left_out],
        broken=[{"file": str(file), "reason": reason} for file, reason in broken],
        legend=LEGEND,
        mixture_legend=MIXTURES_LEGEND,
        adaptivity_legend=ADAPTIVITY_LEGEND,
        figures=drawn,
        plotly=Markup(get_plotlyjs()),  # noqa: S704 - the library itself
    )


def section(problem: Problem, metric: str, broken: list[tuple[Path, str]]) -> dict[str, Any]:
    """Return the template's values for a problem."""
    found, rows = leaderboard(problem, metric), []
    evaluations = evaluated(problem)
    adapted = adapted_groups(evaluations) if evaluations else []
    first, *others = sentences(problem, metric)
    for group, texts in zip(problem.groups, found.rows, strict=True):
        own = group.estimate(metric)
        values: dict[str, float] = {}  # sort keys by the beginning of a column's name
        if own is not None and own.half_width is not None:
            values["95 % interval"] = own.ends[0]
        if group.is_baseline:
            values["difference"] = 0.0
        shown_cells = [
            {"text": text, "is_number": name not in NO_NUMBERS,
             "value": next((v for k, v in values.items() if name.startswith(k)), None)}
            for name, text in zip(found.columns, texts, strict=True)
        ]  # fmt: skip
        row = {"cells": shown_cells, "is_baseline": group.is_baseline, "is_unequal": bool(group.unequal)}
        rows.append(row)
    return {
        "title": problem.title,
        "answer": first,
        "tests": " ".join(others),
        "equal": found.equal,
        "common": " ".join(problem.common) if len(problem.groups) > 1 else "",
        "common_of_teachers": " ".join(problem.common_of_teachers),
        "columns": [{"name": name, "is_number": name not in NO_NUMBERS} for name in found.columns],
        "rows": rows,
        "evaluated": evaluations,
        "mixtures": mixture_tables(evaluations) if evaluations else [],
        "adaptivity": adaptivity_table(adapted),
        "constant": constant(adapted),
        "figures": figures_of(problem, metric, broken, adapted),
    }


def figures_of(
    problem: Problem, metric: str, broken: list[tuple[Path, str]], adapted: Sequence[Adapted]
) -> list[PageFigure]:
    """Return all figures that have data."""
    curves = [curves_of(group, broken) for group in problem.groups]
    by_class = [
        (group, weights) for group in problem.groups if (weights := weights_by_class_of(group, broken))
    ]
    found = (
        accuracy_by_group(problem, metric),
        metric_by_swept_setting(problem, metric),
        training_curves(problem, curves),
        weights_over_time(problem, curves),
        weights_by_class(by_class),
        weights_within_classes(adapted),
        cost_against_accuracy(problem, metric),
    )
    return [figure for figure in found if figure.variants]
