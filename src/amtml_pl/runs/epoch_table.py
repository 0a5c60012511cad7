"""Read the tables of a run whose first column is the epoch, such as ``metrics.csv``."""

from __future__ import annotations

import csv
from pathlib import Path


def read_epochs(file: Path) -> list[dict[str, str]]:
    """Return the rows by column; an OSError or ValueError for another file."""
    try:
        with file.open(newline="", encoding="utf-8") as lines:
            columns, *rows = list(csv.reader(lines, strict=True)) or [[]]
    except csv.Error as error:
        raise ValueError(str(error)) from error
    if columns[:1] != ["epoch"]:
        raise ValueError(f"the first column is {', '.join(columns[:1])!r}, expected 'epoch'")
    if len(set(columns)) < len(columns):
        raise ValueError("two columns have the same name")
    if not rows:
        raise ValueError("the table has no rows")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(columns):
            raise ValueError(f"line {line} has {len(row)} cells, expected {len(columns)}")
        if not row[0].isdecimal():
            raise ValueError(f"line {line} has the epoch {row[0]!r:.40}, expected a whole number, 0 or more")
    return [dict(zip(columns, row, strict=True)) for row in rows]
