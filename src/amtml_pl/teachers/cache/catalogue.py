"""List the stores below a folder, and find where two of them differ."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import model_validator

from amtml_pl.errors import UserError
from amtml_pl.runs.record import TeacherFacts
from amtml_pl.system.records import Command, Count, Positive, Record, Share, read_record
from amtml_pl.teachers.cache.storage import Storage
from amtml_pl.teachers.cache.view import rebuild_fix
from amtml_pl.types import SplitName

MANIFEST = "manifest.json"
LOCKS = ".locks"
MOST_SHARDS = 1_000_000


class TeacherExamination(Record):
    """The accuracy of a teacher on images outside its training data, also with other settings.

    Attributes:
        accuracy_reassigned: with the outputs assigned to the classes again.
        accuracy_with: by other statistics of the normalisation.
        gain_in_standard_errors: for each of these (``classes``: of other classes), the number of additional
            correct images, as a multiple of its standard error.
    """

    images: Count
    accuracy: Share
    accuracy_reassigned: Share
    accuracy_with: dict[str, Share]
    gain_in_standard_errors: dict[str, float]

    @model_validator(mode="after")
    def has_every_gain(self) -> TeacherExamination:
        """Check that every other statistic has its gain."""
        if absent := self.accuracy_with.keys() - self.gain_in_standard_errors.keys():
            raise ValueError(f"gain_in_standard_errors has no entries for {sorted(absent)}")
        return self


class ExaminedTeacher(TeacherFacts):
    """A teacher's facts and the results of its examination; None for one without logits."""

    examination: TeacherExamination | None


class StoreManifest(Record):
    """The description of a store's rows."""

    format: Literal[2] = 2
    teacher: str
    tensor: str
    split: SplitName
    rows: Positive  # N of the split
    shape: tuple[Positive, ...]  # of a row
    shard_rows: Positive  # of each shard but the last
    storage: Storage
    fingerprint: dict[str, Any]  # all causes of the numbers; it names the store's folder
    facts: ExaminedTeacher
    built_with: dict[str, bool | int | str]

    @model_validator(mode="after")
    def can_be_counted(self) -> StoreManifest:
        """Check that the number of shards is not too large to list."""
        if self.rows > MOST_SHARDS * self.shard_rows:
            found = f"{self.rows} rows in shards of {self.shard_rows} rows"
            raise ValueError(f"the number of shards is too large (got {found:.200})")
        return self


FORMAT = StoreManifest.model_fields["format"].default


class Use(Record):
    """A run that used a store; if ``run`` is empty, a command that built it."""

    run: str
    command: Command

    @property
    def exists(self) -> bool:
        """Return True if the run's folder exists."""
        try:
            return bool(self.run) and Path(self.run).exists()
        except (OSError, ValueError):  # a name that no folder can have
            return False


@dataclass(frozen=True)
class StoredTensor:
    """A folder with one teacher's outputs; its manifest is None if damaged."""

    folder: Path
    manifest: StoreManifest | None

    def users(self) -> list[Use]:
        """Return the runs that have used the store; unreadable notes are skipped."""
        found = []
        for file in sorted(self.folder.glob("used_by/*.json")):
            with suppress(UserError):
                found.append(read_record(Use, file, fix=f"rm '{file}'"))
        return found

    def is_used(self, excluded: str | None = None) -> bool:
        """Return True if an existing run used it, or a command without ``excluded`` built it."""
        return any(u.exists if u.run else excluded not in shlex.split(u.command) for u in self.users())

    def bytes_on_disk(self) -> int:
        """Return the bytes of all files of the store."""
        return folder_bytes(self.folder)


def stores_below(root: Path) -> list[StoredTensor]:
    """Return all stores below a folder, also damaged ones, in the order of their paths."""
    found = []
    for file in sorted(root.rglob(MANIFEST)):
        manifest = None
        with suppress(UserError):
            manifest = read_store_manifest(file.parent)
        found.append(StoredTensor(file.parent, manifest))
    return found


def read_store_manifest(folder: Path) -> StoreManifest:
    """Return a store's manifest; damage or another format is a UserError."""
    return read_record(StoreManifest, folder / MANIFEST, fix=rebuild_fix(folder))


def nearest_store(fingerprint: Mapping[str, Any], folder: Path) -> str | None:
    """Return how the most similar neighbour differs from a store; None without neighbours."""
    kind = folder.name.rpartition("-")[0]
    neighbours = {
        other.folder: differing_fields(other.manifest.fingerprint, fingerprint)
        for other in stores_below(folder.parent)
        if other.manifest is not None and other.folder.name.rpartition("-")[0] == kind
    }
    # The store itself, and its copies, differ in no field.
    others = [other for other, fields in neighbours.items() if fields]
    if not others:
        return None
    closest = min(others, key=lambda other: len(neighbours[other]))
    listed = "; ".join(f"{key} (got {here}, stored {there})" for key, there, here in neighbours[closest])
    return f"{closest.parent.name}/{closest.name} differs in {listed}"


def differing_fields(first: Any, second: Any, path: str = "") -> list[tuple[str, str, str]]:
    """Return where two JSON values differ: dotted key and both values as texts.

    1, 1.0 and true are three different values.
    """
    found: list[tuple[str, str, str]] = []
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in dict.fromkeys([*first, *second]):
            inner = f"{path}.{key}" if path else str(key)
            if key in first and key in second:
                found += differing_fields(first[key], second[key], inner)
            else:
                here, there = (repr(of[key]) if key in of else "absent" for of in (first, second))
                found.append((inner, here, there))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for place, (one, other) in enumerate(zip(first, second, strict=True)):
            found += differing_fields(one, other, f"{path}[{place}]")
    elif repr(first) != repr(second):
        found.append((path, repr(first), repr(second)))
    return found


def recorded_views(folder: Path) -> list[int]:
    """Return the views that have a record in a store's folder."""
    found = (re.fullmatch(r"view-(\d+)\.json", file.name) for file in folder.glob("view-*.json"))
    return sorted(int(match[1]) for match in found if match)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a build renames its files meanwhile
            total += file.stat().st_size if file.is_file() else 0
    return total


def lock_name(folder: Path) -> str:
    """Return the common start of a store's lock file names, which lie in `LOCKS`."""
    return f"{folder.parent.name}-{folder.name}"


def path_part(name: str) -> str:
    """Return a name as one part of a path: unique, without the separator ``-``."""
    return quote(name, safe="").replace("-", "%2D")
