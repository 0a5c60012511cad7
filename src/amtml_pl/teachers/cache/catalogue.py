"""The stores below a folder, whoever made them, and what tells two of them apart."""

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
from amtml_pl.types import SplitName

MANIFEST = "manifest.json"
LOCKS = ".locks"
MOST_SHARDS = 1_000_000


class TeacherExamination(Record):
    """What images that a teacher was not trained on tell of it.

    Attributes:
        accuracy_reassigned: with the outputs assigned to the classes anew.
        gain_in_standard_errors: of each of these (``classes``: of other classes), how many more images are
            named rightly, as a multiple of what chance gives.
    """

    images: Count
    accuracy: Share
    accuracy_reassigned: Share
    accuracy_with: dict[str, Share]
    gain_in_standard_errors: dict[str, float]

    @model_validator(mode="after")
    def has_every_gain(self) -> TeacherExamination:
        """Check that the gain of all other statistics is there."""
        if absent := self.accuracy_with.keys() - self.gain_in_standard_errors.keys():
            raise ValueError(f"the gain of {sorted(absent)} is missing")
        return self


class ExaminedTeacher(TeacherFacts):
    """A teacher and what its examination has found."""

    examination: TeacherExamination


class StoreManifest(Record):
    """What the rows of a store belong to.

    Attributes:
        rows: N of the split.
        shape: of a row.
        shard_rows: rows of each shard but the last.
        fingerprint: what decides the numbers; it names the store's folder.
    """

    format: Literal[2] = 2
    teacher: str
    tensor: str
    split: SplitName
    rows: Positive
    shape: tuple[Positive, ...]
    shard_rows: Positive
    storage: Storage
    fingerprint: dict[str, Any]
    facts: ExaminedTeacher
    built_with: dict[str, bool | int | str]

    @model_validator(mode="after")
    def can_be_counted(self) -> StoreManifest:
        """Check that the shards are not too many to be listed."""
        if self.rows > MOST_SHARDS * self.shard_rows:
            many = f"{self.rows} rows in shards of {self.shard_rows}"
            raise ValueError(f"it claims {many:.200}")
        return self


FORMAT = StoreManifest.model_fields["format"].default


class Use(Record):
    """A run that has used a store; without a run, a command that has built it ahead of its runs."""

    run: str
    command: Command

    @property
    def exists(self) -> bool:
        """Return True if the run's folder is there."""
        try:
            return bool(self.run) and Path(self.run).exists()
        except (OSError, ValueError):  # a name that no folder can have
            return False


@dataclass(frozen=True)
class StoredTensor:
    """A folder with the outputs of a teacher."""

    folder: Path
    manifest: StoreManifest | None

    def views(self) -> list[int]:
        """The views that something is recorded of."""
        return recorded_views(self.folder)

    def users(self) -> list[Use]:
        """Return the runs that have used it; a note that cannot be read counts for nothing."""
        found = []
        for file in sorted(self.folder.glob("used_by/*.json")):
            with suppress(UserError):
                found.append(read_record(Use, file, fix=f"rm '{file}'"))
        return found

    def is_used(self, judged: str | None = None) -> bool:
        """Return True if a run that exists has used it, or a command without ``judged`` has built it."""
        return any(use.exists if use.run else judged not in shlex.split(use.command) for use in self.users())

    def bytes_on_disk(self) -> int:
        """What it takes."""
        return folder_bytes(self.folder)


def stores_below(root: Path) -> list[StoredTensor]:
    """Every store below a folder, in the order of their paths; damaged ones too."""
    found = []
    for file in sorted(root.rglob(MANIFEST)):
        try:
            manifest = read_manifest(file.parent)
        except UserError:
            manifest = None
        found.append(StoredTensor(file.parent, manifest))
    return found


def read_manifest(folder: Path) -> StoreManifest:
    """Return the manifest of a store; a UserError if it is damaged or of another format."""
    fix = f"rm -r '{folder}' and repeat the command: it is built again"
    return read_record(StoreManifest, folder / MANIFEST, fix=fix)


def nearest(fingerprint: Mapping[str, Any], folder: Path) -> str | None:
    """Why the most similar neighbour of a store is not that store, as a sentence; None without neighbours."""
    kind = folder.name.rpartition("-")[0]
    closest: tuple[list[tuple[str, str, str]], Path] | None = None
    for other in stores_below(folder.parent):
        if other.manifest is None or other.folder == folder or other.folder.name.rpartition("-")[0] != kind:
            continue
        found = differences(other.manifest.fingerprint, fingerprint)
        if found and (closest is None or len(found) < len(closest[0])):  # a copy of the store differs in none
            closest = found, other.folder
    if closest is None:
        return None
    listed = "; ".join(f"{key}: {there} there, {here} here" for key, there, here in closest[0])
    return f"{closest[1].parent.name}/{closest[1].name} differs in {listed}"


def differences(first: Any, second: Any, path: str = "") -> list[tuple[str, str, str]]:
    """Return where two JSON values differ: dotted key and both as texts; 1, 1.0 and true are three values."""
    found: list[tuple[str, str, str]] = []
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        for key in dict.fromkeys([*first, *second]):
            inner = f"{path}.{key}" if path else str(key)
            if key in first and key in second:
                found += differences(first[key], second[key], inner)
            else:
                here, there = (repr(of[key]) if key in of else "absent" for of in (first, second))
                found.append((inner, here, there))
    elif isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        for place, (one, other) in enumerate(zip(first, second, strict=True)):
            found += differences(one, other, f"{path}[{place}]")
    elif repr(first) != repr(second):
        found.append((path, repr(first), repr(second)))
    return found


def recorded_views(folder: Path) -> list[int]:
    """The views that have a record in a store's folder."""
    found = (re.fullmatch(r"view-(\d+)\.json", file.name) for file in folder.glob("view-*.json"))
    return sorted(int(match[1]) for match in found if match)


def folder_bytes(folder: Path) -> int:
    """The bytes of all files below a folder."""
    total = 0
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a build renames its files meanwhile
            total += file.stat().st_size if file.is_file() else 0
    return total


def lock_name(folder: Path) -> str:
    """What the names of all locks of a store begin with; they lie in `LOCKS` below the root of the stores."""
    return f"{folder.parent.name}-{folder.name}"


def safe(name: str) -> str:
    """A name as part of a path: another one for each name, without the ``-`` that parts a folder's name."""
    return quote(name, safe="").replace("-", "%2D")
