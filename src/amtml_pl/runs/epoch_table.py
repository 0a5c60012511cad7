"""Reading back ``metrics.csv``, which has a row for each epoch of a run."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from amtml_pl.errors import UserError


def epoch_rows(lines: Iterable[str]) -> tuple[list[str], list[list[str]]]:
    """The columns and the rows of a table whose first column is the epoch.

    Args:
        lines: of the file, with their ends.

    Raises:
        ValueError: if it is no such table.
    """
    try:
        table = list(csv.reader(lines, strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if not table:
        raise ValueError("it is empty")
    columns, *rows = table
    if columns[:1] != ["epoch"]:
        raise ValueError(f"its first column is {', '.join(columns[:1])!r}, expected 'epoch'")
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row of {len(row)} cells, expected {len(columns)}")
        if not row[0].isdecimal():
            raise ValueError(f"{row[0]!r} is no epoch")
    return columns, rows


def read_epochs(file: Path) -> list[dict[str, str]]:
    """The rows of a run's ``metrics.csv``, by column.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            columns, rows = epoch_rows(lines)
    except ValueError as error:
        raise damaged(file, str(error)) from error
    return [dict(zip(columns, row, strict=True)) for row in rows]


def damaged(file: Path, how: str) -> UserError:
    """Return the error about a table that the run has just written."""
    return UserError(
        f"{file} is damaged: {how}.",
        fix="the same command again: it writes the table anew from the last checkpoint",
    )
