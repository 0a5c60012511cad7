"""Compare all completed runs below a folder: ``python -m amtml_pl.report runs=FOLDER``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from amtml_pl.comparison.answer import answer
from amtml_pl.comparison.baseline import compare_with
from amtml_pl.comparison.found_runs import FoundRuns, find_runs, relative_name
from amtml_pl.comparison.groups import Problem, problems_of, rename
from amtml_pl.comparison.latex import latex
from amtml_pl.comparison.markdown import markdown
from amtml_pl.comparison.named_folders import named_folders
from amtml_pl.comparison.page import page
from amtml_pl.comparison.spreadsheets import csv_of_groups, csv_of_runs
from amtml_pl.comparison.tables import kept_apart, leaderboard
from amtml_pl.config.checks import check_command
from amtml_pl.config.command import CommandJob, command
from amtml_pl.config.command_keys import REPORT
from amtml_pl.errors import UserError
from amtml_pl.system.console import console, error_console
from amtml_pl.system.files import replacing


@command("report")
def main(job: CommandJob) -> None:
    """Print the leaderboard and write the report."""
    with job.reporting():
        # All others are texts, or lists of texts: a folder may be called 2026.
        options: Any = {
            key: value if value is None or key in ("trials", "names") else texts(value)
            for key, value in job.values().items()
        }
        check_command(options, REPORT)
        words, metric, baseline = options["runs"], options["metric"], options["baseline"]
        places, folder, out = named_folders([words] if isinstance(words, str) else words)
        out = Path(options["out"]) if options["out"] else out
        found = find_runs(folder, metric, trials=options["trials"], places=places)
        problems = problems_of(found.compared, metric)
        if baseline is not None:
            compare_with(problems, baseline, metric)
        rename(problems, {word: str(new) for word, new in (options["names"] or {}).items()})
        broken: list[tuple[Path, str]] = []
        left_out = [f"{relative_name(out.folder, folder)}: {out.reason}" for out in found.left_out]
        files = {
            "report.html": page(problems, found.left_out, folder, metric, broken),
            "report.md": markdown(problems, metric, left_out),
            "report.tex": latex(problems, metric, left_out),
            "report.csv": csv_of_runs(problems),
            "groups.csv": csv_of_groups(problems, metric),
        }
        publish(out, files)
        print_leaderboards(problems, metric)
        print_warnings(problems, found, folder, broken)
        console.print(f"Saved in {escape(str(out))}: {', '.join(files)}")


def texts(value: Any) -> str | list[str]:
    """Return a value as text, and a list as texts."""
    return [*map(str, value)] if isinstance(value, list) else str(value)


def publish(out: Path, files: Mapping[str, str]) -> None:
    """Write all files, or raise a UserError and keep the old ones."""
    try:
        if folders := [name for name in files if (out / name).is_dir()]:
            raise IsADirectoryError(f"{out / folders[0]} is a folder")
        with ExitStack() as whole:
            for name, text in files.items():
                temporary = whole.enter_context(replacing(out / name))
                temporary.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        message = f"The report cannot be written to {out.resolve()}: {error}."
        raise UserError(message, fix="out=FOLDER") from error


# Columns left out on a narrow terminal, in this order.
DISPENSABLE = ("minutes", "epochs", "selection", "val/acc", "95 % interval", "budget")
NARROWEST_TEXT = 20  # of a group's name or a budget, which wrap to the next line


def print_leaderboards(problems: Sequence[Problem], metric: str) -> None:
    """Print one table for each problem, with as many columns as fit."""
    for problem in problems:
        found = leaderboard(problem, metric)
        head, rows = found.columns, found.rows
        kept = columns_that_fit(head, rows, metric)
        table = Table(title=escape(problem.title), title_justify="left")
        for number in kept:
            is_text = head[number] in ("group", "budget")
            table.add_column(
                escape(head[number]), justify="left" if is_text else "right", overflow="fold",
                no_wrap=not is_text and not head[number].startswith("difference"),
            )  # fmt: skip
        for row in rows:
            table.add_row(*(escape(row[number]) for number in kept))
        console.print(table)
        console.print(f"{answer(problem, metric)} {found.equal}".strip(), markup=False)
        if left_out := [name for number, name in enumerate(head) if number not in kept]:
            console.print(f"  Columns that do not fit this terminal: {', '.join(left_out)}", markup=False)


def columns_that_fit(head: Sequence[str], rows: Sequence[Sequence[str]], metric: str) -> list[int]:
    """Return the positions of the columns that the console has room for."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for number, name in enumerate(head):
        if name in ("group", "budget"):
            widths[number] = min(widths[number], NARROWEST_TEXT)
        else:  # a name is folded between its words, a long baseline's within
            longest = max(map(cell_len, name.split()))
            widths[number] = max(widths[number], min(longest, NARROWEST_TEXT))
    kept = [*range(len(head))]
    for name in (*DISPENSABLE, f"{metric.removesuffix('_last')}_last", "p"):
        if sum(widths[number] + 3 for number in kept) + 1 <= console.width:
            break
        kept = [number for number in kept if head[number] != name or name == metric]
    return kept


def print_warnings(
    problems: Sequence[Problem], found: FoundRuns, folder: Path, broken: Sequence[tuple[Path, str]]
) -> None:
    """Print warnings about what the tables leave out or compare unfairly."""
    warnings = [apart] if (apart := kept_apart(problems)) else []
    for problem in problems:
        warnings += [f"the budgets of the group {group.name} are unequal: {'; '.join(group.unequal)}"
                     for group in problem.groups if group.unequal]  # fmt: skip
        if problem.baseline is None and any(other.baseline for other in problems):
            warnings.append(f"{problem.title} has no runs of the baseline")
    warnings += [f"{relative_name(out.folder, folder)} is left out: {out.reason}" for out in found.left_out]
    warnings += [f"{file} is left out of the curves: {reason}" for file, reason in broken]
    for sentence in warnings:
        error_console.print(f"[yellow]warning:[/] {escape(sentence)}")


if __name__ == "__main__":
    main()
