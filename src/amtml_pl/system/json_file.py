"""A JSON file that somebody else may have written: read, or refused with a reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
