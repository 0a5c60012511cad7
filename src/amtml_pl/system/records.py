"""Records: our JSON files as typed models, checked when they are read."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from amtml_pl.errors import UserError
from amtml_pl.system.files import read_text, write_text

PROBLEMS_SHOWN = 3


def shell_command(command: str) -> str:
    """Return a command; raise a ValueError if it is empty or has open quotes."""
    if not shlex.split(command):
        raise ValueError("the command is empty")
    return command


Command = Annotated[str, AfterValidator(shell_command)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Same = TypeVar("Same", bound="Record")


class Record(BaseModel):
    """A JSON object whose fields are all declared; immutable."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", ser_json_inf_nan="constants")

    def replaced(self: Same, **changes: Any) -> Same:
        """Return a copy with some values changed, all validated again."""
        return type(self)(**{**dict(self), **changes})


class Sealed(Record):
    """A record with a digest of its other fields, set when it is written."""

    digest: str = ""


R = TypeVar("R")


def read_record(model: type[R], file: Path, *, fix: str, anew: str = "") -> R:
    """Return the record in a file; raise a UserError if it is unreadable or damaged.

    Args:
        model: of the record, or a dataclass. A field ``format`` names the only format that is read.
        file: where it lies.
        fix: how to repair a damaged file, for the error message.
        anew: how to replace a file of another format; empty means ``fix``.
    """
    try:
        content = read_text(file)
    except OSError as error:
        owner = f"ask the file's owner for read access (ls -l '{file.parent}' shows the owner)"
        raise UserError(f"{file} cannot be read: {error.strerror or error}.", fix=owner) from error
    except ValueError as error:
        raise damaged(file, error, fix) from error
    return parse_record(model, content, file, fix=fix, anew=anew)


def find_record(model: type[R], file: Path, *, fix: str, anew: str = "") -> R | None:
    """Return as `read_record` does; None if the file does not exist."""
    try:
        return read_record(model, file, fix=fix, anew=anew)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise


def parse_record(model: type[R], text: str, file: Path, *, fix: str, anew: str = "") -> R:
    """Return the record in a JSON text; the arguments are those of `read_record`."""
    try:
        content = json.loads(text)
        expected = getattr(model, "model_fields", {}).get("format")
        if expected is not None and isinstance(content, dict):
            refuse_other_format(content.get("format"), expected.default, file, anew or fix)
        # A folder's name that is not text has lone surrogates, which pydantic refuses.
        plain = json.dumps(content, ensure_ascii=False).encode(errors="replace")
        found = TypeAdapter(model).validate_json(plain, strict=True)
    except RecursionError:
        raise damaged(file, ValueError("the JSON is nested too deeply"), fix) from None
    except ValueError as error:
        raise damaged(file, error, fix) from error
    if isinstance(found, Sealed) and content.get("digest") != digest_of_fields(content):
        raise damaged(file, ValueError("the digest does not match the other fields"), fix)
    return found


def refuse_other_format(found: object, expected: object, file: Path, fix: str) -> None:
    """Raise a UserError for a format that this version does not read."""
    if type(found) is not type(expected) or found != expected:
        later = type(found) is int and isinstance(expected, int) and found > expected
        whose = "; a newer version of amtml_pl wrote the file" if later else ""
        raise UserError(f"{file} has format {found!s:.80} (expected {expected}{whose}).", fix=fix)


def damaged(file: Path, error: ValueError, fix: str) -> UserError:
    """Return the error for a file whose content is not a record."""
    text = reasons(error) if isinstance(error, ValidationError) else f"{error!s:.400}"
    return UserError(f"{file} is damaged: {text}.", fix=fix)


def reasons(error: ValidationError) -> str:
    """Return the first problems of a failed validation, as one text."""
    return "; ".join(map(problem, error.errors(include_url=False)[:PROBLEMS_SHOWN]))


def problem(found: Mapping[str, Any]) -> str:
    """Return one problem of a record, such as ``seed is '0', expected a valid integer``."""
    place = ".".join(map(str, found["loc"]))
    reason = found["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if found["type"] == "missing":
        return f"{place:.80} is missing"
    if found["type"] == "extra_forbidden":
        return f"{place:.80} is an unknown field"
    value = found["input"]
    shown = f"a {type(value).__name__}" if isinstance(value, Mapping | list | tuple) else f"{value!r:.80}"
    return f"{place:.80} is {shown}, {reason:.200}" if place else f"{reason:.200}"


def write_record(file: Path, record: BaseModel) -> None:
    """Replace a file by a record, atomically."""
    write_text(file, as_json(record))


def as_json(record: BaseModel) -> str:
    """Return a record as JSON text, with a digest if its model is `Sealed`."""
    content = record.model_dump(mode="json", by_alias=True)
    return json.dumps(sealed(content) if isinstance(record, Sealed) else content, indent=2) + "\n"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object with a digest of all its other fields."""
    return {**content, "digest": digest_of_fields(content)}


def digest_of_fields(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an object's fields, without its own digest."""
    fields = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
