"""List teachers, students, methods or data sets in a table: ``python -m amtml_pl.info teachers``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from amtml_pl.config.checks import check_values
from amtml_pl.config.command import CommandJob, command
from amtml_pl.config.command_keys import INFO
from amtml_pl.config.command_line import options_and_overrides
from amtml_pl.system.console import console

NUMBERS = ("parameters", "MACs", "pixels", "classes", "training images")
TEXTS = ("needs", "weights", "loss", "what")  # these wrap to the next line
DISPENSABLE = ("weights", "loss", "pixels", "MACs")  # left out on a narrow terminal, in this order
NARROWEST_TEXT = 20
NOTES: Mapping[str, str] = {
    "teachers": "A recipe trains every student as a teacher, too. timm/MODEL is any network of timm.",
    "students": "For the images and classes of dataset=NAME. MACs: multiply-accumulates for one image.",
    "methods": "Formulas, sources and results: docs/methods/index.md.",
    "datasets": "Folders of these files, and your own images: docs/data.md.",
}


def main() -> None:
    """Run the command line, whose first word may be the choices to list."""
    sys.argv[1:] = with_key(sys.argv[1:])
    run()


def with_key(words: Sequence[str]) -> list[str]:
    """Return words of the command line, with ``info=`` before a first override without a key."""
    options, overrides = options_and_overrides(words)
    if overrides and "=" not in overrides[0]:
        overrides[0] = f"info={overrides[0]}"
    return [*overrides, *options]


@command("info", multirun=False)
def run(job: CommandJob) -> None:
    """Print the table; the other overrides are those of a run."""
    with job.reporting():
        what = job.take(INFO)["info"]
        check_values(job.config)
        from amtml_pl.training.choices import TABLES

        words = [word for word in job.overrides if not word.startswith("info=")]
        print_table([*TABLES[what](words)])
        console.print(NOTES[what], markup=False)


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows with the same columns, as many as fit."""
    widths = {title: max(cell_len(row[title]) for row in rows) for title in rows[0]}
    widths = {title: max(cell_len(title), min(widths[title], NARROWEST_TEXT if title in TEXTS else 100))
              for title in widths}  # fmt: skip
    for title in DISPENSABLE:
        if sum(widths.values()) + 3 * len(widths) <= console.width:
            break
        widths.pop(title, None)
    table = Table(box=SIMPLE_HEAD)
    for title in widths:
        table.add_column(
            title,
            justify="right" if title in NUMBERS else "left",
            no_wrap=title not in TEXTS,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(escape(row[title]) for title in widths))
    console.print(table)
    if left_out := [title for title in rows[0] if title not in widths]:
        console.print(f"Columns that do not fit this terminal: {', '.join(left_out)}", markup=False)


if __name__ == "__main__":
    main()
