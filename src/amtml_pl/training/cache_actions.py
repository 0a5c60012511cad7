"""Actions of ``amtml_pl.cache``: build, verify, list and tidy teachers' cached outputs."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import find_packed
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.console import console, counted
from amtml_pl.teachers.cache.catalogue import lock_name, stores_below
from amtml_pl.teachers.cache.trust import compare_outputs, compare_pixels, verify_checksums
from amtml_pl.teachers.cache.upkeep import hold_idle, remove_empty_folders, remove_leftovers, show_info
from amtml_pl.training.assemble import data_module
from amtml_pl.training.pipeline import prepare
from amtml_pl.training.plan import plan
from amtml_pl.training.run_cache import RunCache
from amtml_pl.training.settings import Settings
from amtml_pl.training.stages import RunRequest
from amtml_pl.types import SplitName


@dataclass(frozen=True)
class Command:
    """Command line as it was typed."""

    experiment: str | None
    words: Sequence[str]

    def __call__(self, action: str) -> str:
        """Return the command with another action."""
        kept = [word for word in self.words if not word.startswith(("action=", "rows="))]
        return shlex.join(["python", "-m", "amtml_pl.cache", f"action={action}", *kept])


def act(settings: Settings, command: Command, action: str, splits: list[SplitName], rows: int) -> None:
    """Do one action on the cache."""
    if action == "build":
        build_ahead(settings, command, splits)
    elif action == "verify":
        verify(settings, command, splits, rows)
    elif action == "gc":
        remove_unused(settings, command)
    else:
        show_info(settings.cache.root.parent)


def build_ahead(settings: Settings, command: Command, splits: list[SplitName]) -> None:
    """Build everything that a run of this configuration would, up to its last view."""
    refuse_uncached(settings)
    request = RunRequest(settings, RunFolder(settings.cache.root), command.experiment, command("build"))
    prepared = prepare(plan(request))
    planned = prepared.plan
    needed: list[SplitName] = ["val"] if planned.needs_held_out else []
    for split in dict.fromkeys([*splits, *needed]):
        cache = RunCache(settings.cache, planned.teachers, prepared.data, prepared.accuracy, split)
        cache.check()
        cache.refuse_full_disk(planned.hints)
        cache.note_use(None, request.command)
        built = cache.provide(cache.views)
        rows = sum(built.teacher_passes.values())
        size = decimal(sum(store.bytes_on_disk() for store in cache.stores()))
        console.print(
            f"{split}: {counted(len(cache.views), 'view')} of "
            f"{counted(len(cache.teachers), 'teacher')}, {size} in {cache.root}, "
            + (f"{rows:,} images computed in {built.seconds:.0f} s" if rows else "all there already"),
            markup=False,
        )


def verify(settings: Settings, command: Command, splits: list[SplitName], rows: int) -> None:
    """Compare all shards, images and random rows with their origin; build nothing."""
    refuse_uncached(settings)
    teachers = settings.teachers(settings.method.terms())
    data = packed_data(settings)
    untrained = [teacher.name for teacher in teachers if teacher.identity() is None]
    if data is None or untrained:
        lacking = "the packed images" if data is None else f"the weights of {', '.join(untrained)}"
        raise UserError(f"There is nothing to verify: {lacking} do not exist yet.", fix=command("build"))
    for split in splits:
        verify_split(RunCache(settings.cache, teachers, data, {}, split), command, rows)


def verify_split(cache: RunCache, command: Command, rows: int) -> None:
    """Verify the views of one split; a UserError names the first difference."""
    split, there, augment = cache.split, cache.complete(), cache.data.augment
    if not there:
        raise UserError(
            f"Nothing of the {split.name} split is cached in {cache.root} for this experiment"
            + (f"; {other}." if (other := cache.nearest()) else "."),
            fix=command("build"),
        )
    cache.data.packed.verify()
    verify_checksums(cache.teachers, cache.views, console)
    for view in there:
        compare_pixels(cache.teachers, split, augment, view)
    console.print(
        f"{split.name}: {counted(len(there), 'view')}"
        + (f" of {len(cache.views)}" if len(there) < len(cache.views) else "")
        + f", every checksum right, every image the one that the teachers saw ({cache.root})",
        markup=False,
    )
    table = Table(
        title=f"{min(rows, len(split))} random images of each view, computed again",
        title_justify="left", show_edge=False,
    )  # fmt: skip
    for column in ("teacher", "tensor", "stored as", "largest relative difference", "same class named"):
        table.add_column(column, overflow="fold")
    for teacher in cache.teachers:
        for tensor, difference in compare_outputs(
            teacher, split, augment, there, rows, cache.options.build
        ).items():
            named = "always" if tensor == "logits" else ""
            stored = teacher.stores[tensor].storage
            table.add_row(escape(teacher.name), tensor, stored, f"{difference:.1e}", named)
    console.print(table)


def refuse_uncached(settings: Settings) -> None:
    """Raise a UserError for an experiment without a cache."""
    if not settings.offered:
        raise UserError(
            "There is no teacher to cache.", fix="experiment=digits_amtml, or teacher=[resnet32,...]"
        )
    if not settings.cached:
        raise UserError("teacher_source=live keeps no cache.", fix="teacher_source=cached")


def packed_data(settings: Settings) -> PackedDataModule | None:
    """Return the experiment's splits and views; None while its images are not packed."""
    packed = find_packed(settings.dataset.source.build(), settings.dataset.packed_root)
    return None if packed is None else data_module(settings, packed)


def remove_unused(settings: Settings, command: Command) -> None:
    """Remove stores that neither an existing run nor the command's experiment uses.

    What was built ahead (``action=build``) is kept too, unless it was for the experiment of this command and
    is not what that would use now. Stores that a running build has locked stay; leftovers of a killed
    build are removed.
    """
    root, needed = settings.cache.root.parent, own_folders(settings)
    experiment = None if command.experiment is None else f"experiment={command.experiment}"
    unused = [
        store
        for store in stores_below(root)
        if store.folder.resolve() not in needed and not store.is_used(experiment)
    ]
    try:
        with ExitStack() as locks:
            busy = hold_idle(root, locks)
            unused = [store for store in unused if lock_name(store.folder) not in busy]
            freed = sum(store.bytes_on_disk() for store in unused)
            if unused:
                console.print("No run that exists refers to these, nor does the experiment of this command:")
            for store in unused:
                console.print(
                    f"  {store.folder.relative_to(root)}  {decimal(store.bytes_on_disk())}", markup=False
                )
            for store in unused:
                shutil.rmtree(store.folder)
            freed += remove_leftovers(root, busy)
        remove_empty_folders(root)
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be removed: {error.strerror}.", fix=f"chmod -R u+w '{root}'"
        ) from error
    if freed:
        console.print(f"Removed, {decimal(freed)} freed.")
    else:
        console.print(
            f"Nothing to remove in {root.resolve()}: all is used by a run, a build or this experiment.",
            markup=False,
        )


def own_folders(settings: Settings) -> set[Path]:
    """Return the store folders of the command's experiment that can be named without building."""
    data = packed_data(settings) if settings.offered else None
    if data is None:
        return set()
    named = [t for t in settings.teachers(settings.method.terms()) if t.identity() is not None]
    splits = [split for split in get_args(SplitName) if split in data.sizes]
    caches = [RunCache(settings.cache, named, data, {}, split) for split in splits]
    return {store.folder.resolve() for cache in caches for store in cache.stores()}
