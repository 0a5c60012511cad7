"""``export.json``: what a run's folder says of the files that its student was exported to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from amtml_pl.errors import UserError
from amtml_pl.runs.folder import digest_of_file
from amtml_pl.system.files import read_json, write_json


def add_entry(record: Path, entry: Mapping[str, Any]) -> None:
    """Adds an entry to a run's ``export.json``, or replaces the one of the same file.

    Args:
        record: the ``export.json``, which is made if there is none.
        entry: about the file that it calls ``file``.

    Raises:
        UserError: if it cannot be written, or is damaged.
    """
    record.parent.mkdir(exist_ok=True)
    with FileLock(record.with_name(".export.json.lock")):  # several exports may end together
        write_json(record, {**read_entries(record), str(entry["file"]): entry})


def refuse_changed(file: Path) -> None:
    """Raise an error for an export that is not the one which the ``export.json`` beside it records.

    Raises:
        UserError: if its SHA-256 is another. A file that was moved away alone has no record.
    """
    entry = read_entries(file.with_name("export.json")).get(f"export/{file.name}")
    if not isinstance(entry, dict):
        return
    found = digest_of_file(file)
    if found != entry.get("sha256"):
        raise UserError(
            f"{file} was changed after the export (got SHA-256 {found[:12]}, "
            f"expected {str(entry.get('sha256'))[:12]}).",
            fix="copy the folder again, or write the file again: python -m amtml_pl.export run=FOLDER",
        )


def read_entries(file: Path) -> dict[str, Any]:
    """What a run's ``export.json`` says of earlier exports, by file; nothing where there is none.

    Raises:
        UserError: if it is damaged.
    """
    if not file.exists():
        return {}
    try:
        entries = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}.", fix=f"rm '{file}'") from error
    if not isinstance(entries, dict):
        raise UserError(
            f"{file} holds a {type(entries).__name__}, expected entries by file.", fix=f"rm '{file}'"
        )
    return entries
