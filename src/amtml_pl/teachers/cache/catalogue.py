"""The stores below a folder, whoever made them, and what tells two of them apart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from amtml_pl.errors import UserError
from amtml_pl.system.files import are_numbers, read_json
from amtml_pl.teachers.cache.storage import BYTES

NUMBERS = ("accuracy", "accuracy_reassigned", "images")


BY_NAME = ("accuracy_with", "gain_in_standard_errors")


def are_facts(value: object) -> bool:
    """Whether it maps names to facts, and those that others read are of the right type."""
    if not isinstance(value, Mapping) or not are_numbers(value.get("accuracy", {})):
        return False
    if not isinstance(value.get("weights_digest", ""), str):
        return False
    return "examination" not in value or is_examination(value["examination"])


def is_examination(value: Any) -> bool:  # noqa: ANN401
    """Whether it is what the examination of a teacher has found."""
    if not isinstance(value, Mapping) or not {*NUMBERS, *BY_NAME} <= value.keys():
        return False
    if not are_numbers({name: value[name] for name in NUMBERS}):
        return False
    # For all other statistics that were tried it says what they gained.
    return all(are_numbers(value[name]) for name in BY_NAME) and (
        value["accuracy_with"].keys() <= value["gain_in_standard_errors"].keys()
    )


FORMAT = 1
MANIFEST = "manifest.json"
LOCKS = ".locks"
MOST_SHARDS = 1_000_000


class Absent:
    """What is not there, where two things are compared."""

    def __repr__(self) -> str:
        return "absent"


ABSENT = Absent()


def is_count(value: object) -> bool:
    """Whether it is a whole number from 1."""
    return type(value) is int and value > 0


FIELDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "teacher": ("a name", lambda value: isinstance(value, str)),
    "tensor": ("a name", lambda value: isinstance(value, str)),
    "split": ("a name", lambda value: isinstance(value, str)),
    "rows": ("a whole number from 1", is_count),
    "shape": ("whole numbers from 1", lambda value: isinstance(value, list) and all(map(is_count, value))),
    "shard_rows": ("a whole number from 1", is_count),
    "storage": (f"one of {', '.join(BYTES)}", lambda value: isinstance(value, str) and value in BYTES),
    "fingerprint": ("a mapping", lambda value: isinstance(value, dict)),
    "facts": ("what is known of a teacher", are_facts),
    "built_with": ("a mapping", lambda value: isinstance(value, dict)),
}


@dataclass(frozen=True)
class StoredTensor:
    """A folder with the outputs of a teacher.

    Attributes:
        folder: where they lie.
        manifest: what they belong to; None where that cannot be read.
    """

    folder: Path
    manifest: dict[str, Any] | None

    def views(self) -> list[int]:
        """The views that something is recorded of."""
        return recorded_views(self.folder)

    def users(self) -> list[dict[str, str]]:
        """The runs that have used it: folder and command."""
        found = []
        for file in sorted(self.folder.glob("used_by/*.json")):
            try:
                user = read_json(file)
                run, command = str(user["run"]), str(user["command"])
                Path(run).exists(), shlex.split(command)  # what cannot be looked for was not written by us
                found.append({"run": run, "command": command})
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

    def is_used(self, judged: str | None = None) -> bool:
        """Whether a run that exists has used it, or a command has built it ahead of its runs.

        Args:
            judged: an override, such as ``experiment=digits_amtml``; commands with it do not count.
        """
        return any(
            Path(user["run"]).exists() if user["run"] else judged not in shlex.split(user["command"])
            for user in self.users()
        )

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


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a store's manifest says.

    Raises:
        UserError: if it is damaged or of another format.
    """
    file, fix = folder / MANIFEST, f"rm -r '{folder}' and repeat the command: it is built again"
    try:
        manifest = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"The manifest {file} cannot be read ({error}).", fix=fix) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        got = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise UserError(f"The manifest {file} has format {got!r:.80}, expected {FORMAT}.", fix=fix)
    for key, (expected, is_right) in FIELDS.items():
        if not is_right(manifest.get(key)):
            got = repr(manifest[key]) if key in manifest else "absent"
            raise UserError(f"In the manifest {file}, {key} is {got:.200}, expected {expected}.", fix=fix)
    if manifest["rows"] > MOST_SHARDS * manifest["shard_rows"]:
        many = f"{manifest['rows']} rows in shards of {manifest['shard_rows']}"
        raise UserError(f"The manifest {file} claims {many:.200}.", fix=fix)
    return manifest


def nearest(fingerprint: Mapping[str, Any], folder: Path) -> str | None:
    """Why the most similar neighbour of a store is not that store, as a sentence; None without neighbours.

    Args:
        fingerprint: of the store.
        folder: where it lies, or would.
    """
    kind = folder.name.rpartition("-")[0]
    closest: tuple[list[tuple[str, Any, Any]], Path] | None = None
    for other in stores_below(folder.parent):
        if other.manifest is None or other.folder == folder or other.folder.name.rpartition("-")[0] != kind:
            continue
        found = differences(other.manifest["fingerprint"], fingerprint)
        if found and (closest is None or len(found) < len(closest[0])):  # a copy of the store differs in none
            closest = found, other.folder
    if closest is None:
        return None
    listed = "; ".join(f"{key}: {there!r} there, {here!r} here" for key, there, here in closest[0])
    return f"{closest[1].parent.name}/{closest[1].name} differs in {listed}"


def differences(first: Any, second: Any, path: str = "") -> list[tuple[str, Any, Any]]:  # noqa: ANN401
    """Where two nested values of JSON differ: dotted key, first value, second value; `ABSENT` for none.

    1, 1.0 and true are three values, as they are in the text that names a store's folder.
    """
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = dict.fromkeys([*first, *second])
        pairs = ((k, first.get(k, ABSENT), second.get(k, ABSENT)) for k in keys)
        return [found for k, a, b in pairs for found in differences(a, b, f"{path}.{k}" if path else str(k))]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        items = enumerate(zip(first, second, strict=True))
        return [found for i, (a, b) in items for found in differences(a, b, f"{path}[{i}]")]
    return [] if repr(first) == repr(second) else [(path, first, second)]


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
