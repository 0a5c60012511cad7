"""Write files atomically, read them with a size limit, and probe locks."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from filelock import FileLock, Timeout

from amtml_pl.errors import UserError


def named_output(out: str, *, suffix: str, what: str, is_one: Callable[[Path], object]) -> Path:
    """Return the file of ``out=`` if it is new or written by this command.

    Args:
        out: as typed.
        suffix: required of the name.
        what: the kind of file, with an article.
        is_one: returns a true value if an existing file is of that kind.
    """
    file = Path(out).expanduser().resolve()
    if file.suffix != suffix and not file.is_dir():
        fix = f"out={Path(out).with_suffix(suffix)}"
        raise UserError(f"out={out} has a wrong suffix (expected {suffix} for {what}).", fix=fix)
    refuse_unwritable(file)
    if file.exists() and not is_one(file):
        raise UserError(
            f"The existing file {file} is not {what}. It was not overwritten.", fix="out=NEW_FILE"
        )
    return file


def refuse_unwritable(file: Path) -> None:
    """Raise a UserError if a file could not be written; create nothing."""
    if file.is_dir():
        raise UserError(f"The path {file} is a folder (expected a file).", fix="out=FILE")
    try:
        with tempfile.TemporaryFile(dir=nearest_folder(file)):
            pass
    except OSError as error:
        raise unwritable(file, error) from error


@contextmanager
def replacing(file: Path, mark: str = "") -> Iterator[Path]:
    """Yield a temporary path whose file replaces another one atomically on success.

    Args:
        file: the file to replace; its folder is made.
        mark: part of the temporary name. Empty draws a random one, so that processes may write at once; while
            there is no folder, the temporary file lies above it. A fixed one is for a single writer, and
            overwrites what a killed process left in the folder.
    """
    folder = file.parent if mark else nearest_folder(file)
    temporary = folder / f".{file.stem}.{mark or secrets.token_hex(8)}{file.suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield temporary
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(file)
    except OSError as error:
        if error.errno and error.filename in (None, str(temporary)):  # a write on a full disk knows no name
            error.filename, error.filename2 = str(file), None
        raise
    finally:
        with suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)


@contextmanager
def output(file: Path) -> Iterator[Path]:
    """Yield as `replacing` does, with a UserError if the file cannot be written."""
    try:
        with replacing(file) as temporary:
            yield temporary
    except OSError as error:
        raise unwritable(file, error) from error


def write_text(file: Path, text: str) -> None:
    """Replace a file by a text, as `write_bytes` does."""
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Replace a file atomically, by one process at a time; an OSError names the file."""
    with replacing(file, mark="new") as temporary:
        temporary.write_bytes(content)


def nearest_folder(file: Path) -> Path:
    """Return the folder of a file, or the nearest existing one above it."""
    return next(folder for folder in file.parents if folder.exists())


def unwritable(file: Path, error: OSError) -> UserError:
    """Return the error for a file that cannot be written."""
    reason = error.strerror or error
    return UserError(f"The file {file} cannot be written: {reason}.", fix="out=OTHER_FOLDER/FILE")


MOST_BYTES = 64 << 20


def read_text(file: Path, most_bytes: int = MOST_BYTES) -> str:
    """Return a text; raise a ValueError for a special, binary or huge file."""
    if file.exists() and not file.is_file():
        raise ValueError("the path is not a regular file")
    if (size := file.stat().st_size) > most_bytes:
        raise ValueError(f"the file is too large (got {size:,} bytes, expected at most {most_bytes:,})")
    return file.read_text(encoding="utf-8")


def digest_of_file(file: Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file's bytes, without reading it into memory."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def file_digest(file: Path) -> str | None:
    """Return the SHA-256 of a file, cached until it changes; None if unreadable."""
    try:
        state = file.stat()
        return _digest_of_state(file, state.st_mtime_ns, state.st_size)
    except OSError:
        return None


@lru_cache
def _digest_of_state(file: Path, _modified: int, _size: int) -> str:
    return digest_of_file(file)


def short_digest(content: str | bytes, digits: int) -> str:
    """Return the first hexadecimal digits of a SHA-256, e.g. as part of a file's name."""
    return hashlib.sha256(os.fsencode(content)).hexdigest()[:digits]  # a path may not be UTF-8


def is_held(lock_file: Path) -> bool:
    """Return True if a process holds a lock; an unreadable one is an OSError."""
    if lock_file.is_symlink() or not lock_file.is_file():  # some versions of filelock empty a link's target
        return False
    try:
        with FileLock(lock_file, timeout=0):
            return False
    except Timeout:
        return True
