"""The stores below a folder, whoever made them, and what tells two of them apart."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amtml_pl.errors import UserError

FORMAT = 1
MANIFEST = "manifest.json"
KEYS = frozenset(
    {
        "format",
        "teacher",
        "tensor",
        "split",
        "rows",
        "shape",
        "shard_rows",
        "storage",
        "fingerprint",
        "facts",
        "built_with",
    }
)


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
                user = json.loads(file.read_text())
                found.append({"run": str(user["run"]), "command": str(user["command"])})
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return found

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
        manifest = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"The manifest {file} cannot be read ({error}).", fix=fix) from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        got = manifest.get("format") if isinstance(manifest, dict) else manifest
        raise UserError(f"The manifest {file} has format {got!r}, expected {FORMAT}.", fix=fix)
    if absent := KEYS - manifest.keys():
        raise UserError(f"The manifest {file} lacks {', '.join(sorted(absent))}.", fix=fix)
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
        if closest is None or len(found) < len(closest[0]):
            closest = found, other.folder
    if closest is None:
        return None
    listed = "; ".join(f"{key}: {there!r} there, {here!r} here" for key, there, here in closest[0])
    return f"{closest[1].parent.name}/{closest[1].name} differs in {listed}"


def differences(first: Any, second: Any, path: str = "") -> list[tuple[str, Any, Any]]:  # noqa: ANN401
    """Where two nested values differ: dotted key, first value, second value; None where absent."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        keys = dict.fromkeys([*first, *second])
        nested = [differences(first.get(k), second.get(k), f"{path}.{k}" if path else str(k)) for k in keys]
        return [found for part in nested for found in part]
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second):
        pairs = enumerate(zip(first, second, strict=True))
        return [found for i, (a, b) in pairs for found in differences(a, b, f"{path}[{i}]")]
    return [] if first == second else [(path, first, second)]


def recorded_views(folder: Path) -> list[int]:
    """The views that have a record in a store's folder."""
    found = (re.fullmatch(r"view-(\d+)\.json", file.name) for file in folder.glob("view-*.json"))
    return sorted(int(match[1]) for match in found if match)


def folder_bytes(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def safe(name: str) -> str:
    """A name as part of a path."""
    return re.sub(r"[^A-Za-z0-9_.]+", "_", name)
