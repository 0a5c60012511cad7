"""The file that a command leaves: refused early where it may not be written, replaced in one instant."""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from amtml_pl.errors import UserError


def named_output(out: str, *, suffix: str, what: str, is_one: Callable[[Path], bool]) -> Path:
    """The file that ``out=`` names, which nobody misses: a new one, or one that the command has written.

    Args:
        out: as it was typed.
        suffix: that its name must have.
        what: such files are, with an article.
        is_one: whether a file that is there is such a one.

    Raises:
        UserError: if it has another suffix, holds something else, is a folder, or cannot be written.
    """
    file = Path(out).expanduser().resolve()
    if file.suffix != suffix and not file.is_dir():
        raise UserError(
            f"out={out}: {what} has a name that ends in {suffix}.", fix=f"out={Path(out).with_suffix(suffix)}"
        )
    refuse_unwritable(file)
    if file.exists() and not is_one(file):
        raise UserError(f"{file} is not {what}, and is left as it is.", fix="out=FILE, with another name")
    return file


def refuse_unwritable(file: Path) -> None:
    """Refuses a target before anything is computed for it; nothing is made.

    Raises:
        UserError: if it is a folder, or nothing can be written beside it.
    """
    if file.is_dir():
        raise UserError(f"{file} is a folder.", fix="out=FILE")
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(file)):
            pass
    except OSError as error:
        raise unwritable(file, error) from error


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Replaces a file in one instant.

    Raises:
        UserError: if it cannot be written; the one before stays.
    """
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A free name with a file's suffix; what is written there takes the file's place at the end.

    It lies in the file's folder, or where that is to be made in the nearest one that is there.

    Raises:
        UserError: if it cannot be written; the one before stays, as it does at any other exception.
    """
    temporary = nearest_folder(file) / f".{file.stem}.{secrets.token_hex(8)}{file.suffix}"
    try:
        try:
            yield temporary
            file.parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(file)
        finally:
            with suppress(OSError):  # of a folder that is none: what went wrong first is what is said
                temporary.unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(file, error) from error


def nearest_folder(file: Path) -> Path:
    """The folder of a file, or the first above it that is there."""
    return next(folder for folder in file.parents if folder.exists())


def unwritable(file: Path, error: OSError) -> UserError:
    """What to say of a target that cannot be written."""
    return UserError(
        f"{file} cannot be written: {error.strerror or error}.", fix="out=FILE, in another folder"
    )
