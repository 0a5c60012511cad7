"""The record of a view: which of its shards exist, and their checksums."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amtml_pl.errors import UserError
from amtml_pl.runs.folder import write_text
from amtml_pl.system.json_file import read_json


def read_record(file: Path, view: int, shards: Mapping[int, tuple[str, range]]) -> dict[int, dict[str, Any]]:
    """What has been entered of a view's shards, by their numbers; nothing where there is no record.

    Args:
        file: the record.
        view: that it should be of.
        shards: the name and the rows of each shard that it may list.

    Raises:
        UserError: if it is damaged, or the record of something else.
    """
    if not file.exists():
        return {}
    try:
        record = read_json(file)
        listed = {entry["file"]: entry for entry in record["shards"]}
        entries = {number: listed[name] for number, (name, _) in shards.items() if name in listed}
        right = record["view"] == view and len(entries) == len(record["shards"])
        for number, entry in entries.items():
            rows = shards[number][1]
            right &= entry["rows"] == [rows.start, rows.stop]
            right &= entry["bytes"] >= 0 and len(entry["sha256"]) == 64
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(file, f"cannot be read ({error!r})") from error
    if not right:
        raise damaged(file, f"does not list the shards of view {view} of this store")
    return entries


def write_record(file: Path, view: int, entries: Mapping[int, Mapping[str, Any]]) -> None:
    """Replaces the record of a view in one instant.

    Raises:
        OSError: if it cannot be written.
    """
    record = {"view": view, "shards": [entries[number] for number in sorted(entries)]}
    write_text(file, json.dumps(record, indent=1) + "\n")


def damaged(file: Path, what: str) -> UserError:
    """What to say of a record that cannot be believed."""
    fix = f"rm '{file}' and repeat the command: the shards that it listed are built again"
    return UserError(f"The record {file} {what}.", fix=fix)
