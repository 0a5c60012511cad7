"""Files that are written whole or not at all, read with a limit, and locks that are probed."""

from __future__ import annotations

import hashlib
import json
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

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


MOST_BYTES = 64 << 20


def read_json(file: Path) -> Any:  # noqa: ANN401
    """What a JSON file says.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no JSON, nested too deeply to be read, or far larger than any file of ours.
    """
    if file.exists() and not file.is_file():
        raise ValueError("it is not a regular file")
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"it has {size:,} bytes, expected at most {MOST_BYTES:,}")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with the digest of all its other fields."""
    plain = json.loads(json.dumps(content, default=str))
    return {**plain, "digest": digest_of(plain)}


def is_sealed(content: Mapping[str, Any]) -> bool:
    """Return whether an object still holds what it was sealed with."""
    return digest_of(content) == content.get("digest")


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an object's fields, but for its own digest."""
    fields = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def are_numbers(value: object) -> bool:
    """Whether it maps names to numbers."""
    return isinstance(value, Mapping) and all(type(number) in (int, float) for number in value.values())


def write_text(file: Path, text: str) -> None:
    """`write_bytes` for a text, in a folder that is made where it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, text.encode())


def write_bytes(file: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, never a part.

    One process at a time; what one that was killed has left under the temporary name is overwritten.

    Raises:
        OSError: if it cannot be written; it names the file, of which nothing half-written remains.
    """
    temporary = file.with_name(f".{file.name}")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    except BaseException as error:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:  # a full disk is found by a write, which knows no name
            error.filename, error.filename2 = str(file), None
        raise


def is_held(lock_file: Path) -> bool:
    """Whether a process holds a lock."""
    try:
        with FileLock(lock_file, timeout=0):
            return False
    except Timeout:
        return True
