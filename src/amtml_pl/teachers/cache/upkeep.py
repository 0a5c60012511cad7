"""What is wrong with the stores on a disk, and what a killed build has left there."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

from amtml_pl.teachers.cache.catalogue import LOCKS, lock_name
from amtml_pl.teachers.cache.store import TensorStore


def damaged_shards(store: TensorStore, view: int) -> list[int]:
    """Return the shards of a recorded view that are absent or of another size; their bytes are not read."""
    absent = store.missing(view)
    sizes = {n: entry.bytes for n, entry in store.record(view).items() if n not in absent}
    return absent + [n for n, size in sizes.items() if store.shard_file(view, n).stat().st_size != size]


def hold_idle(root: Path, held: ExitStack) -> set[str]:
    """Take every lock that no build holds; return the stores (`lock_name`) that are being built."""
    busy = set()
    for file in sorted(root.rglob(f"{LOCKS}/*.lock")):
        try:
            held.enter_context(FileLock(file, timeout=0))
            held.callback(file.unlink, missing_ok=True)
        except Timeout:
            busy.add(file.stem.rpartition("-")[0])
    return busy


def remove_leftovers(root: Path, busy: set[str]) -> int:
    """Removes half-written files that a killed build has left; returns their bytes."""
    freed = 0
    for file in sorted(root.rglob(".*.json*")) + sorted(root.rglob(".view-*.safetensors")):
        folder = file.parent.parent if file.parent.name == "used_by" else file.parent
        if lock_name(folder) not in busy:
            freed += file.stat().st_size
            file.unlink()
    return freed


def remove_empty_folders(root: Path) -> None:
    """Removes the folders in which nothing is left."""
    for folder in sorted((f for f in root.rglob("*") if f.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
