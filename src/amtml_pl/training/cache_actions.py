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
from amtml_pl.training.settings import Settings, settings_with_cached_teachers
from amtml_pl.training.stages import RunRequest
from amtml_pl.types import SplitName


@dataclass(frozen=True)
class CacheCommand:
    """Command line as typed: the experiment's name, if any, and all overrides."""

    experiment: str | None
    words: Sequence[str]

    def __call__(self, action: str) -> str:
        """Return the command with another action."""
        kept = [word for word in self.words if not word.startswith(("action=", "rows="))]
        return shlex.join(["python", "-m", "amtml_pl.cache", f"action={action}", *kept])


def act(settings: Settings, command: CacheCommand, action: str, splits: list[SplitName], rows: int) -> None:
    """Do one action on the cache."""
    if action == "build":
        build_ahead(settings, command, splits)
    elif action == "verify":
        verify(settings, command, splits, rows)
    elif action == "gc":
        remove_unused(settings, command)
    else:
        show_info(settings.cache.root.parent)


def build_ahead(settings: Settings, command: CacheCommand, splits: list[SplitName]) -> None:
    """Build all outputs that a run of this configuration would, up to its last view."""
    refuse_uncached(settings)
    folder, name = RunFolder(settings.cache.root), command.experiment
    request = RunRequest(settings, folder, experiment=name, command=command("build"))
    planned = plan(request)
    prepared = prepare(planned, splits)
    needed: list[SplitName] = ["val"] if planned.needs_held_out else []
    for split in dict.fromkeys([*splits, *needed]):
        cache = RunCache(settings, planned.teachers, prepared.data, prepared.accuracy, split)
        cache.check()
        cache.refuse_full_disk(planned.hints)
        cache.note_use(None, request.command)
        built = cache.provide(cache.views)
        rows = sum(built.teacher_passes.values())
        done = f"{rows:,} images computed in {built.seconds:.0f} s" if rows else "all were cached before"
        console.print(
            f"{split}: {counted(len(cache.views), 'view')} of {counted(len(cache.teachers), 'teacher')}, "
            f"{decimal(cache.bytes_on_disk())} in {cache.root}, {done}",
            markup=False,
        )


def verify(settings: Settings, command: CacheCommand, splits: list[SplitName], rows: int) -> None:
    """Compare all shards, images and random rows with their origin; build nothing."""
    refuse_uncached(settings)
    teachers, data = settings.teachers(), packed_data(settings)
    untrained = [teacher.name for teacher in teachers if teacher.identity() is None]
    if data is None or untrained:
        missing = "packed images" if data is None else f"network weights of teacher {', '.join(untrained)}"
        raise UserError(f"The cache cannot be verified: the {missing} do not exist.", fix=command("build"))
    for split in splits:
        verify_split(RunCache(settings, teachers, data, {}, split), command, rows)


def verify_split(cache: RunCache, command: CacheCommand, rows: int) -> None:
    """Verify the views of one split; raise a UserError for the first difference."""
    split, there, augment = cache.split, cache.complete(), cache.data.augment
    if not there:
        other = f" In the cache, {nearest}." if (nearest := cache.nearest()) else ""
        raise UserError(
            f"The cache {cache.root} has no complete view of this experiment's {split.name} split.{other}",
            fix=command("build"),
        )
    cache.data.packed.verify()
    verify_checksums(cache.teachers, cache.views, console)
    for view in there:
        compare_pixels(cache.teachers, split, augment, view)
    of_all = f" of {len(cache.views)}" if len(there) < len(cache.views) else ""
    done = "all checksums are right, and all images are those that the teachers saw"
    console.print(f"{split.name}: {counted(len(there), 'view')}{of_all}: {done} ({cache.root})", markup=False)
    title = f"Cached outputs of {min(rows, len(split))} random images of each view, compared with new outputs"
    table = Table(title=title, title_justify="left", show_edge=False)
    for column in ("teacher", "tensor", "stored as", "largest relative difference", "same class predicted"):
        table.add_column(column, overflow="fold")
    for teacher in cache.teachers:
        differences = compare_outputs(teacher, split, augment, there, rows, cache.options.build)
        for tensor, difference in differences.items():
            named, stored = "always" if tensor == "logits" else "", teacher.stores[tensor].storage
            table.add_row(escape(teacher.name), tensor, stored, f"{difference:.1e}", named)
    console.print(table)


def refuse_uncached(settings: Settings) -> None:
    """Raise a UserError for an experiment without a cache."""
    if not settings.offered:
        fix = "pass experiment=digits_amtml, or 'teacher=[resnet32]'"
        raise UserError("The experiment selects no teacher (got teacher=[], expected one or more).", fix=fix)
    if not settings.cached:
        what = "The experiment does not use the cache (got teacher_source=live, expected cached)."
        raise UserError(what, fix="pass teacher_source=cached")


def packed_data(settings: Settings) -> PackedDataModule | None:
    """Return the experiment's splits and views; None while its images are not packed."""
    packed = find_packed(settings.dataset.source.build(), settings.dataset.packed_root)
    return None if packed is None else data_module(settings, packed)


def remove_unused(settings: Settings, command: CacheCommand) -> None:
    """Remove stores that neither an existing run nor the command's experiment uses.

    Stores of ``action=build`` stay, unless they were built for this experiment and it would no longer use
    them. Stores that a running build has locked stay. Leftovers of a killed build are removed.
    """
    root, needed = settings.cache.root.parent, stores_of_experiment(settings)
    experiment = None if command.experiment is None else f"experiment={command.experiment}"
    unused = [s for s in stores_below(root) if not (s.folder.resolve() in needed or s.is_used(experiment))]
    try:
        with ExitStack() as locks:
            busy = hold_idle(root, locks)
            sizes = {s.folder: s.bytes_on_disk() for s in unused if lock_name(s.folder) not in busy}
            if sizes:
                console.print("Removing unused outputs:")
            for folder, size in sizes.items():
                console.print(f"  {folder.relative_to(root)}  {decimal(size)}", markup=False)
            for folder in sizes:
                shutil.rmtree(folder)
            freed = sum(sizes.values()) + remove_leftovers(root, busy)
        remove_empty_folders(root)
    except OSError as error:
        raise UserError(
            f"The path {error.filename} cannot be removed: {error.strerror}.", fix=f"chmod -R u+w '{root}'"
        ) from error
    if freed:
        console.print(f"Removed unused files: {decimal(freed)} freed.")
    else:
        used = "a run, a build or this experiment uses all outputs"
        console.print(f"Nothing to remove in {root.resolve()}: {used}.", markup=False)


def stores_of_experiment(settings: Settings) -> set[Path]:
    """Return the store folders of the command's experiment that can be named without building."""
    data = packed_data(settings) if settings.offered else None
    if data is None:
        return set()
    named = [teacher for teacher in settings.teachers() if teacher.identity() is not None]
    splits = [split for split in get_args(SplitName) if split in data.sizes]
    # A live run's own stores are exact; those of the same run with a cache stay, too.
    forms = [settings] if settings.cached else [settings, settings_with_cached_teachers(settings)]
    caches = [RunCache(form, named, data, {}, split) for form in forms for split in splits]
    return {store.folder.resolve() for cache in caches for store in cache.stores}
