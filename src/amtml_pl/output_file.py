"""The file that a command leaves: refused early where it cannot be written, replaced in one instant."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from amtml_pl.errors import UserError
from amtml_pl.runs import write_text


def refuse_unwritable(file: Path) -> None:
    """Refuses a target before anything is computed for it.

    Raises:
        UserError: if it is a folder, or nothing can be written beside it.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder.", fix="out=FILE")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise unwritable(file, error) from error


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replaces a file in one instant.

    Raises:
        UserError: if it cannot be written; the one before stays.
    """
    try:
        write_text(file, json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise unwritable(file, error) from error


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A name beside a file, with its suffix; what is written there takes the file's place at the end.

    Raises:
        UserError: if it cannot be written; the one before stays, as it does at any other exception.
    """
    temporary = file.with_name(f".{file.name}")
    try:
        try:
            yield temporary
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(file, error) from error


def unwritable(file: Path, error: OSError) -> UserError:
    """What to say of a target that cannot be written."""
    return UserError(
        f"{file} cannot be written: {error.strerror or error}.", fix="out=FILE, in another folder"
    )
