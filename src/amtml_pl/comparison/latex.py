"""Write a comparison as LaTeX tables for a paper."""

from __future__ import annotations

import re
from collections.abc import Sequence

from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.tables import LEGEND, compared, kept_apart, measured, one_line

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$", "|": r"\textbar{}",
}  # fmt: skip
SIGN = re.compile(r"(?<![\w.])([+-])(?=\d)")
POWER = re.compile(r"(\d)e-0*(\d+)")
LONG = 40  # a name of more letters is broken into lines
# As wide as it is, at most as wide as the text.
FITTING = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def latex(problems: Sequence[Problem], metric: str, left_out: Sequence[str] = ()) -> str:
    r"""Return a ``booktabs`` table for each problem, for ``\input``; the first one has the legend.

    Runs that were left out are in comments, with the reason.
    """
    comments = [r"\usepackage{booktabs,graphicx}"]
    if apart := kept_apart(problems):
        comments.append(f"{apart}.")
    comments += [f"left out: {each}" for each in left_out]
    head = "".join(f"% {one_line(comment, {})}\n" for comment in comments)
    return "\n".join([head, *(latex_table(number, problems, metric) for number in range(len(problems)))])


def latex_table(number: int, problems: Sequence[Problem], metric: str) -> str:
    """Return the table of a problem."""
    problem = problems[number]
    paired = ["difference", "p", "p (Holm)"] if problem.baseline else []
    heads = ["group", "n", metric, "95 % interval", *paired]
    is_long = any(len(group.name) > LONG for group in problem.groups)
    legend = rf"\par\smallskip\parbox{{\linewidth}}{{\footnotesize {escaped(LEGEND)}}}"
    shared = " ".join((*problem.common, *problem.common_of_teachers)) if len(problem.groups) > 1 else ""
    return "\n".join(
        [
            f"% {one_line(problem.title, {})}{': ' if shared else ''}{one_line(shared, {})}",
            r"\begin{table}",
            r"\centering",
            r"\small",
            rf"\caption{{{caption(number, problems, metric)}}}",
            rf"\label{{{label(problem)}}}",
            r"\par\smallskip",
            FITTING,
            rf"\begin{{tabular}}{{{'p{6.5cm}' if is_long else 'l'}{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            f"{' & '.join(map(escaped, heads))} \\\\",
            r"\midrule",
            *(row(group, problem, metric) for group in problem.groups),
            r"\bottomrule",
            r"\end{tabular}}",
            *([] if number else [legend]),
            r"\end{table}",
            "",
        ]
    )


def caption(number: int, problems: Sequence[Problem], metric: str) -> str:
    """Return the caption: title, metric, baseline, and warnings."""
    problem = problems[number]
    titles = [without_digest(each) for each in problems]
    title = titles[number] if titles.count(titles[number]) == 1 else problem.title
    sentences = [f"{escaped(title)}: {escaped(metric)}."]
    if problem.baseline:
        sentences.append(f"Differences are relative to {escaped(problem.baseline.name)}.")
    if any(group.unequal for group in problem.groups):
        sentences.append(r"$^\dagger$ marks an unequal budget.")
    if len(problems) > 1:
        sentences.append("Do not compare this table with the others: their data or students differ.")
    if number:
        sentences.append(rf"The columns are explained in Table~\ref{{{label(problems[0])}}}.")
    return " ".join(sentences)


def without_digest(problem: Problem) -> str:
    """Return the title of a problem without the digest of its data set."""
    return problem.title.replace(f" ({problem.dataset.digest[:8]})", "")


def label(problem: Problem) -> str:
    """Return a label such as ``tab:digits-3f786850-cifarresnet-with-19-954-parameters``."""
    return f"tab:{re.sub(r'[^a-z0-9]+', '-', problem.title.lower()).strip('-')}"


def row(group: Group, problem: Problem, metric: str) -> str:
    r"""Return a row that LaTeX cannot read as an argument of the ``\\`` before it."""
    own = group.estimate(metric)
    interval = "" if own is None else own.interval()
    numbers = [str(len(group.runs)), measured(group, metric), interval, *compared(group, problem).values()]
    name = escaped(group.name)
    if len(group.name) > LONG:
        name = r"\raggedright " + name.replace(",", r",\allowbreak{}")
    elif name.startswith(("[", "*")):
        name = f"{{}}{name}"
    return " & ".join([name + (r"$^\dagger$" if group.unequal else ""), *map(in_math, numbers)]) + r" \\"


def in_math(number: str) -> str:
    """Return a number with signs and powers as in a paper."""
    return POWER.sub(r"$\1\\cdot10^{-\2}$", SIGN.sub(r"$\1$", escaped(number)))


def escaped(text: str) -> str:
    """Return a text escaped for LaTeX."""
    return one_line(text, ESCAPES)
