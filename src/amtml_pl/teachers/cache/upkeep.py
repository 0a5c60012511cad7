"""List the stores on a disk, find damage, and remove incomplete files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from amtml_pl.errors import UserError
from amtml_pl.system.console import console, counted
from amtml_pl.teachers.cache.catalogue import LOCKS, StoredTensor, lock_name, recorded_views, stores_below
from amtml_pl.teachers.cache.store import TensorStore

CLASS_KEYS = ("_target_", "operation")  # listed by value alone


def damaged_shards(store: TensorStore, view: int) -> list[int]:
    """Return a view's shards that are missing or of another size, without reading them."""
    absent = store.missing(view)
    sizes = {n: entry.bytes for n, entry in store.record(view).items() if n not in absent}
    return absent + [n for n, size in sizes.items() if store.shard_file(view, n).stat().st_size != size]


def hold_idle(root: Path, held: ExitStack) -> set[str]:
    """Take every lock that no build holds; return the names (`lock_name`) of the other stores."""
    busy = set()
    for file in sorted(root.rglob(f"{LOCKS}/*.lock")):
        try:
            held.enter_context(FileLock(file, timeout=0))
            held.callback(file.unlink, missing_ok=True)
        except Timeout:
            busy.add(file.stem.rpartition("-")[0])
    return busy


def remove_leftovers(root: Path, busy: set[str]) -> int:
    """Remove half-written files of killed builds; return their bytes."""
    freed = 0
    for file in [*root.rglob(".*.json*"), *root.rglob(".view-*.safetensors")]:
        folder = file.parent.parent if file.parent.name == "used_by" else file.parent
        if lock_name(folder) not in busy:
            freed += file.stat().st_size
            file.unlink()
    return freed


def remove_empty_folders(root: Path) -> None:
    """Remove all empty folders below a folder."""
    for folder in sorted((f for f in root.rglob("*") if f.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def show_info(root: Path) -> None:
    """Print every store below a folder: size, views, teacher's accuracy, fingerprint, users."""
    stores = stores_below(root)
    if not stores:
        console.print(f"The cache folder {root.resolve()} has no teacher outputs.", markup=False)
        return
    table = Table(title=escape(str(root.resolve())), title_justify="left", show_edge=False, show_lines=True)
    for column in ("folder", "views", "size", "val/acc", "fingerprint", "used by"):
        table.add_column(column, overflow="fold")
    for store in stores:
        table.add_row(*map(escape, info_row(store, root)))
    console.print(table)
    size = decimal(sum(store.bytes_on_disk() for store in stores))
    console.print(f"{counted(len(stores), 'folder')}, {size}.")


def info_row(stored: StoredTensor, root: Path) -> tuple[str, ...]:
    """Return one row of the list."""
    place, size = str(stored.folder.relative_to(root)), decimal(stored.bytes_on_disk())
    users = [use.run or f"built by: {use.command}" for use in stored.users() if not use.run or use.exists]
    used = "\n".join(users) or "no run"
    try:
        store, views = TensorStore.from_folder(stored.folder), recorded_views(stored.folder)
        damaged = [view for view in views if damaged_shards(store, view)]
    except UserError as error:
        return place, "", size, "", f"damaged: {error.what}", used
    accuracy = stored.manifest.facts.accuracy.get("val") if stored.manifest else None
    about = [f"{key}: {abbreviated(value)}" for key, value in store.fingerprint.items() if value is not None]
    if damaged:
        about.insert(0, f"damaged: views {damaged} have missing or incomplete shards")
    shown = "" if accuracy is None else f"{accuracy:.4f}"
    return place, str(len(views) - len(damaged)), size, shown, "\n".join(about), used


def abbreviated(value: object) -> str:
    """Return a part of a fingerprint on one line."""
    if isinstance(value, dict):
        given = {key: abbreviated(child) for key, child in value.items() if child not in (None, [], {})}
        return ", ".join(text if key in CLASS_KEYS else f"{key} {text}" for key, text in given.items())
    if isinstance(value, list):
        return "[" + ", ".join(map(abbreviated, value)) + "]"
    text = str(value)
    return text if len(text) < 20 or " " in text or "." in text else text[:12]
