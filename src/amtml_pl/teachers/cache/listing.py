"""What ``python -m amtml_pl.cache action=info`` prints."""

from __future__ import annotations

from pathlib import Path

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from amtml_pl.errors import UserError
from amtml_pl.system.console import console, counted
from amtml_pl.teachers.cache.catalogue import StoredTensor, read_manifest, stores_below
from amtml_pl.teachers.cache.store import TensorStore
from amtml_pl.teachers.cache.upkeep import damaged_shards

CLASS_KEYS = ("_target_", "operation")  # their values speak for themselves


def show_info(root: Path) -> None:
    """Lists every store below a folder: size, views, accuracy of the teacher, fingerprint, users."""
    stores = stores_below(root)
    if not stores:
        console.print(f"Nothing is cached in {root.resolve()}.", markup=False)
        return
    table = Table(title=escape(str(root.resolve())), title_justify="left", show_edge=False, show_lines=True)
    for column in ("store", "views", "size", "val/acc", "fingerprint", "used by"):
        table.add_column(column, overflow="fold")
    for store in stores:
        table.add_row(*(escape(cell) for cell in described(store, root)))
    console.print(table)
    console.print(
        f"{counted(len(stores), 'store')}, {decimal(sum(store.bytes_on_disk() for store in stores))}."
    )


def described(stored: StoredTensor, root: Path) -> tuple[str, ...]:
    """One row of the list."""
    place, size = str(stored.folder.relative_to(root)), decimal(stored.bytes_on_disk())
    users = [use.run or f"built ahead: {use.command}" for use in stored.users() if not use.run or use.exists]
    used = "\n".join(users) or "no run"
    try:
        store = TensorStore.from_folder(stored.folder)
        views = [view for view in stored.views() if not damaged_shards(store, view)]
        damaged = sorted(set(stored.views()) - set(views))
    except UserError as error:
        return place, "", size, "", f"damaged: {error.what}", used
    manifest = read_manifest(stored.folder)
    accuracy = manifest.facts.accuracy.get("val")
    about = [f"{key}: {short(value)}" for key, value in store.identity.items() if value is not None]
    if damaged:
        about.insert(0, f"damaged: views {damaged} lack bytes or shards")
    return (
        place,
        str(len(views)),
        size,
        "" if accuracy is None else f"{accuracy:.4f}",
        "\n".join(about),
        used,
    )


def short(value: object) -> str:
    """A part of a fingerprint on one line."""
    if isinstance(value, dict):
        return ", ".join(
            short(child) if key in CLASS_KEYS else f"{key} {short(child)}"
            for key, child in value.items()
            if child not in (None, [], {})
        )
    if isinstance(value, list):
        return "[" + ", ".join(short(child) for child in value) + "]"
    text = str(value)
    return text if len(text) < 20 or " " in text or "." in text else text[:12]
