"""What ``amtml_pl.cache`` does: it builds, verifies, lists and tidies teachers' cached outputs."""

from __future__ import annotations

import shlex
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from amtml_pl.config.paths import cache_root, packed_root_of
from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import find_packed
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.console import console, counted
from amtml_pl.teachers.cache.catalogue import lock_name, stores_below
from amtml_pl.teachers.cache.listing import show_info
from amtml_pl.teachers.cache.trust import all_pixels, compare, verify_checksums
from amtml_pl.teachers.cache.upkeep import hold_idle, remove_empty_folders, remove_leftovers
from amtml_pl.teachers.selected import selected_teachers
from amtml_pl.training import assemble
from amtml_pl.training.pipeline import Run
from amtml_pl.training.teacher_cache import RunCache
from amtml_pl.types import SplitName


def act(config: DictConfig, action: str, splits: list[SplitName], rows: int) -> None:
    """Do one action on the cache."""
    if action == "build":
        build_ahead(config, splits)
    elif action == "verify":
        verify(config, splits, rows)
    elif action == "gc":
        remove_unused(config)
    else:
        show_info(Path(config.paths.cache))


def build_ahead(config: DictConfig, splits: list[SplitName]) -> None:
    """Provides all that a run of this configuration would, up to the last view of its last epoch.

    Raises:
        UserError: if the run has no cache, or something cannot be provided.
    """
    refuse_uncached(config)
    choices = HydraConfig.get().runtime.choices
    run = Run(config, RunFolder(cache_root(config)), choices.get("experiment"), cache_command("build"))
    data = run.prepare()
    needed: list[SplitName] = ["val"] if run.module.needs_held_out else []
    for split in dict.fromkeys([*splits, *needed]):
        cache = RunCache(config, run.teachers, data, run.accuracy, split)
        cache.check()
        cache.refuse_full_disk(run.hints)
        cache.note_use(None, cache_command("build"))
        built = cache.provide(cache.views)
        rows = sum(built.teacher_passes.values())
        size = decimal(sum(store.bytes_on_disk() for store in cache.stores()))
        console.print(
            f"{split}: {counted(len(cache.views), 'view')} of "
            f"{counted(len(cache.teachers), 'teacher')}, {size} in {cache.root}, "
            + (f"{rows:,} images computed in {built.seconds:.0f} s" if rows else "all there already"),
            markup=False,
        )


def verify(config: DictConfig, splits: list[SplitName], rows: int) -> None:
    """Holds every shard against its checksum, every image against its own, and random rows against teachers.

    It makes nothing: neither images, nor teachers, nor what the cache lacks.

    Raises:
        UserError: at the first that differs, or if nothing has been built.
    """
    refuse_uncached(config)
    teachers = selected_teachers(config, assemble.loss_terms(config))
    data = packed_data(config)
    untrained = [teacher.name for teacher in teachers if teacher.identity() is None]
    if data is None or untrained:
        lacking = "the packed images" if data is None else f"the weights of {', '.join(untrained)}"
        raise UserError(
            f"There is nothing to verify: {lacking} do not exist yet.", fix=cache_command("build")
        )
    for split in splits:
        verify_split(RunCache(config, teachers, data, {}, split), rows)


def verify_split(cache: RunCache, rows: int) -> None:
    """The same for the views of one split.

    Raises:
        UserError: at the first that differs, or if nothing has been built.
    """
    split, there, augment = cache.split, cache.complete(), cache.data.augment
    if not there:
        raise UserError(
            f"Nothing of the {split.name} split is cached in {cache.root} for this experiment"
            + (f"; {other}." if (other := cache.nearest()) else "."),
            fix=cache_command("build"),
        )
    cache.data.packed.verify()
    verify_checksums(cache.teachers, cache.views, console)
    for view in there:
        all_pixels(cache.teachers, split, augment, view)
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
        for tensor, difference in compare(teacher, split, augment, there, rows, cache.options).items():
            named = "always" if tensor == "logits" else ""
            stored = teacher.stores[tensor].storage
            table.add_row(escape(teacher.name), tensor, stored, f"{difference:.1e}", named)
    console.print(table)


def refuse_uncached(config: DictConfig) -> None:
    """Refuses what keeps no cache.

    Raises:
        UserError: without teachers, or with live ones.
    """
    if not config.teacher:
        raise UserError(
            "There is no teacher to cache.", fix="experiment=digits_amtml, or teacher=[resnet32,...]"
        )
    if config.teacher_source != "cached":
        raise UserError("teacher_source=live keeps no cache.", fix="teacher_source=cached")


def packed_data(config: DictConfig) -> PackedDataModule | None:
    """The splits and views of the experiment; None while its images are not packed."""
    packed = find_packed(assemble.dataset_source(config), packed_root_of(config))
    return None if packed is None else assemble.data_module(config, packed)


def remove_unused(config: DictConfig) -> None:
    """Removes the stores that no existing run has used, nor the command's experiment would.

    What was built ahead (``action=build``) is kept too, unless it was for the experiment of this command and
    is not what that would use now. What a build of this moment holds is left alone, and what a killed one has
    left is removed.
    """
    root = Path(config.paths.cache)
    needed, experiment = own_folders(config), HydraConfig.get().runtime.choices.get("experiment")
    judged = None if experiment is None else f"experiment={experiment}"
    unused = [
        store
        for store in stores_below(root)
        if store.folder.resolve() not in needed and not store.is_used(judged)
    ]
    try:
        with ExitStack() as held:
            busy = hold_idle(root, held)
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


def own_folders(config: DictConfig) -> set[Path]:
    """The stores of the command's experiment, as far as they can be named without making anything."""
    data = packed_data(config) if config.teacher else None
    if data is None:
        return set()
    named = [t for t in selected_teachers(config, assemble.loss_terms(config)) if t.identity() is not None]
    splits = [split for split in get_args(SplitName) if split in data.sizes]
    caches = [RunCache(config, named, data, {}, split) for split in splits]
    return {store.folder.resolve() for cache in caches for store in cache.stores()}


def cache_command(action: str) -> str:
    """The command of this process with another action."""
    words: Any = OmegaConf.to_container(HydraConfig.get().overrides.task)
    told = [o for o in words if not o.startswith(("action=", "rows="))]
    return shlex.join(["python", "-m", "amtml_pl.cache", f"action={action}", *told])
