"""A comparison as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from amtml_pl.comparison.groups import Group, Problem

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$", "|": r"\textbar{}",
}  # fmt: skip
MARKDOWN = {"|": "\\|", "<": "&lt;", ">": "&gt;", "&": "&amp;",
            **{character: f"\\{character}" for character in "\\`*_[]~$"}}  # fmt: skip
BETWEEN_LETTERS = re.compile(r"(?<=[^\W_])\\_(?=[^\W_])")  # where an underscore is no emphasis


def columns(problem: Problem, metric: str) -> list[str]:
    """The names of the columns: what a person reads of a group."""
    return [
        "group",
        "n",
        "epochs",
        *metrics_shown(metric),
        "95 % interval",
        *([f"difference from {problem.baseline.name}", "p"] if problem.baseline else []),
        "minutes",
        "budget",
    ]


def cells(group: Group, problem: Problem, metric: str) -> list[str]:
    """One cell for each of `columns`: numbers as mean ± standard deviation over seeds."""
    own = group.estimate(metric)
    return [
        group.name,
        str(len(group.runs)),
        epochs(group),
        *(str(group.estimate(name) or "") for name in metrics_shown(metric)),
        "" if own is None else own.interval(),
        *compared(group, problem),
        f"{minutes(group):.1f}",
        "; ".join(group.unequal) or "equal",
    ]


def metrics_shown(metric: str) -> tuple[str, ...]:
    """What a table shows: what models are selected by, and the metric for the best and the last epoch."""
    return tuple(dict.fromkeys(("val/acc", metric, f"{metric.removesuffix('_last')}_last")))


def compared(group: Group, problem: Problem) -> list[str]:
    """The difference from the baseline and its p-value."""
    if problem.baseline is None or group.against_baseline is None:
        return []
    if group.is_baseline:
        return ["baseline", ""]
    return [group.against_baseline.difference(), group.against_baseline.probability()]


def epochs(group: Group) -> str:
    """How long the students were trained."""
    return "/".join(sorted({str(run.budget.get("epochs", "?")) for run in group.runs}))


def minutes(group: Group) -> float:
    """The mean time of a fit, without what building the cache took."""
    return statistics.fmean(run.timing["fit_seconds"] for run in group.runs) / 60


def markdown(problems: Sequence[Problem], metric: str) -> str:
    """One table for each problem."""
    parts = []
    for problem in problems:
        head = columns(problem, metric)
        rows = [head, ["---"] * len(head), *(cells(group, problem, metric) for group in problem.groups)]
        lines = "".join(f"| {' | '.join(map(in_markdown, row))} |\n" for row in rows)
        parts.append(f"## {in_markdown(problem.title)}\n\n{said_of(problem)}{lines}")
    return "# Comparison of runs\n\n" + "\n".join(parts) + f"\n{LEGEND}\n"


LEGEND = (
    "± is the standard deviation over the n seeds, the interval that of the mean by Student's t, p of the "
    "two-sided paired t-test over the seeds that a group and the baseline have in common (where one has more "
    "seeds, their number stands beside the difference), in brackets why there is none: one such seed, none, "
    "or differences that are all the same. It is not corrected for comparing many groups. Accuracies are in "
    "[0, 1]."
)


def said_of(problem: Problem) -> str:
    """What all groups of a problem have in common."""
    common = in_markdown(" ".join(problem.common))
    return f"All runs: {common}\n\n" if common and len(problem.groups) > 1 else ""


def latex(problems: Sequence[Problem], metric: str) -> str:
    r"""One ``booktabs`` table for each problem, for ``\input``."""
    parts = ["% \\usepackage{booktabs}\n"]
    for problem in problems:
        head = columns(problem, metric)
        rows = [row_in_latex(cells(group, problem, metric)) for group in problem.groups]
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{one_line(problem.title, LATEX)}. {one_line(LEGEND, LATEX)}}}",
                    rf"\begin{{tabular}}{{l{'r' * (len(head) - 2)}l}}",
                    r"\toprule",
                    row_in_latex(head),
                    r"\midrule",
                    *rows,
                    r"\bottomrule",
                    r"\end{tabular}",
                    r"\end{table}",
                    "",
                ]
            )
        )
    return "\n".join(parts)


def row_in_latex(row: Sequence[str]) -> str:
    r"""A row, which does not begin with what the ``\\`` before it would take for its argument."""
    text = " & ".join(one_line(cell, LATEX) for cell in row)
    return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"


def in_markdown(text: str) -> str:
    """A text in Markdown; underscores within a word stay readable."""
    return BETWEEN_LETTERS.sub("_", one_line(text, MARKDOWN))


def one_line(text: str, escapes: Mapping[str, str]) -> str:
    """A cell's text, which a run's record may have chosen, without what a table would take for its own."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return "".join(escapes.get(character, character) for character in printable)


def csv_of_runs(problems: Sequence[Problem]) -> str:
    """One line per run with all its metrics and times."""
    lines = []
    for problem in problems:
        for group in problem.groups:
            for run in group.runs:
                own = {**of_group(problem, group), "seed": run.seed, "folder": str(run.folder)}
                # Again at the end: what a run calls its numbers does not replace what tells lines apart.
                lines.append({**own, **run.metrics, **run.timing, **own})
    return comma_separated(lines)


def csv_of_groups(problems: Sequence[Problem], metric: str) -> str:
    """One line per group with its statistics."""
    lines = []
    for problem in problems:
        for group in problem.groups:
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
    """What says which group a line belongs to."""
    return {
        "dataset": problem.dataset,
        "digest": problem.digest[:8],
        "group": group.name,
        "experiment": group.first.experiment,
        "method": group.first.method,
        "settings": " ".join(group.first.settings),
    }


def comma_separated(lines: Iterable[Mapping[str, Any]]) -> str:
    """A table whose columns are all that any line has."""
    rows = list(lines)
    text = io.StringIO()
    table = csv.DictWriter(
        text, list(dict.fromkeys(name for row in rows for name in row)), restval="", lineterminator="\n"
    )
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
