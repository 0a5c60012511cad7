"""``python -m amtml_pl.cache action=...``: builds, verifies, lists and tidies teachers' cached outputs."""

from __future__ import annotations

import shlex
import shutil
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from amtml_pl import assemble
from amtml_pl.config import check, check_command, config_directory
from amtml_pl.entry_point import console, progress, report_mistake, start
from amtml_pl.errors import UserError
from amtml_pl.identity import register_resolvers
from amtml_pl.pipeline import Run
from amtml_pl.plan import packed_root_of
from amtml_pl.run_cache import RunCache, found_cache
from amtml_pl.runs import RunFolder
from amtml_pl.schema import CACHE_COMMAND
from amtml_pl.selected_teachers import selected_teachers
from amtml_pl.teacher_cache.catalogue import StoredTensor, stores_below
from amtml_pl.teacher_cache.store import TensorStore
from amtml_pl.teacher_cache.trust import all_pixels, compare
from amtml_pl.types import SplitName

register_resolvers()


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's or a damaged cache."""
    start(run)


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="cache")
def run(config: DictConfig) -> None:
    """One action on the cache."""
    progress.begun = True
    try:
        with open_dict(config):
            asked = {key: config.pop(key) for key in CACHE_COMMAND}
        check_command(asked, CACHE_COMMAND)
        check(config)
        if asked["action"] == "build":
            build_ahead(config, asked["splits"])
        elif asked["action"] == "verify":
            verify(config, asked["splits"], asked["rows"])
        elif asked["action"] == "gc":
            remove_unused(config)
        else:
            show_info(config)
    except UserError as error:
        if config.debug:
            traceback.print_exc()
        report_mistake(error)


def build_ahead(config: DictConfig, splits: list[SplitName]) -> None:
    """Provides all that a run of this configuration would, up to the last view of its last epoch.

    Raises:
        UserError: if the run has no cache, or something cannot be provided.
    """
    for cache in caches(config, splits):
        cache.check()
        built = cache.provide(cache.views)
        rows = sum(built.teacher_passes.values())
        size = decimal(sum(store.bytes_on_disk() for store in cache.stores()))
        console.print(
            f"{cache.split.name}: {len(cache.views)} views of {len(cache.teachers)} teachers, {size}, "
            + (f"{rows:,} teacher passes in {built.seconds:.0f} s" if rows else "all there already")
            + f", in {cache.root}"
        )


def verify(config: DictConfig, splits: list[SplitName], rows: int) -> None:
    """Holds every shard against its checksum, every image against its own, and random rows against teachers.

    Raises:
        UserError: at the first that differs, or if nothing has been built.
    """
    for cache in caches(config, splits):
        there = cache.complete()
        if not there:
            raise UserError(
                f"Nothing of the {cache.split.name} split is cached in {cache.root} for this experiment.",
                fix=cache_command("build"),
            )
        cache.check()
        for view in there:
            all_pixels(cache.teachers, cache.split, cache.data.augment, view)
        table = Table(
            title=f"{cache.split.name}: {rows} random rows of each of {len(there)} views, recomputed"
        )
        for column in ("teacher", "tensor", "largest difference", "same argmax"):
            table.add_column(column)
        for teacher in cache.teachers:
            found = compare(teacher, cache.split, cache.data.augment, there, rows, cache.options)
            for tensor, difference in found.items():
                table.add_row(teacher.name, tensor, f"{difference:.2e}", "yes" if tensor == "logits" else "")
        console.print(table)


def caches(config: DictConfig, splits: list[SplitName]) -> list[RunCache]:
    """The caches of the splits, with images and teachers in place."""
    if not config.teacher:
        raise UserError(
            "There is no teacher to cache.", fix="experiment=digits_amtml, or teacher=[resnet32,...]"
        )
    if config.teacher_source != "cached":
        raise UserError("teacher_source=live keeps no cache.", fix="teacher_source=cached")
    choices = HydraConfig.get().runtime.choices
    run = Run(config, RunFolder(Path()), choices.get("experiment"), cache_command("build"))
    data = run.prepare()
    return [RunCache(config, run.teachers, data, run.accuracy, split) for split in splits]


def show_info(config: DictConfig) -> None:
    """Lists every store below ``paths.cache``: size, views, accuracy of the teacher, fingerprint, users."""
    stores = stores_below(Path(config.paths.cache))
    if not stores:
        console.print(f"Nothing is cached in {Path(config.paths.cache).resolve()}.")
        return
    table = Table(title=f"{Path(config.paths.cache).resolve()}", title_justify="left")
    for column in ("store", "views", "size", "teacher's val/acc", "fingerprint", "used by"):
        table.add_column(column, overflow="fold")
    for store in stores:
        table.add_row(*(escape(cell) for cell in described(store, Path(config.paths.cache))))
    console.print(table)
    console.print(f"{decimal(sum(store.bytes_on_disk() for store in stores))} in all.")


def described(store: StoredTensor, root: Path) -> tuple[str, ...]:
    """One row of the list."""
    place = str(store.folder.relative_to(root))
    size = decimal(store.bytes_on_disk())
    if store.manifest is None:
        return place, "", size, "", "damaged: its manifest cannot be read", ""
    prints = store.manifest["fingerprint"]
    accuracy = store.manifest["facts"].get("accuracy", {}).get("val")
    about = [f"{key}: {short(value)}" for key, value in prints.items() if value is not None]
    users = [user["run"] for user in store.users() if Path(user["run"]).exists()]
    return (
        place,
        str(len(store.views())),
        size,
        "" if accuracy is None else f"{accuracy:.4f}",
        "\n".join(about),
        "\n".join(users) or "no run",
    )


def own_stores(config: DictConfig) -> list[TensorStore]:
    """The stores of the command's experiment, as far as they can be named without making anything."""
    if not config.teacher:
        return []
    teachers = selected_teachers(config, assemble.loss_terms(config))
    cache = found_cache(config, assemble.dataset_source(config), packed_root_of(config), teachers)
    return [] if cache is None else cache.stores()


def cache_command(action: str) -> str:
    """The command of this process with another action."""
    told = [o for o in HydraConfig.get().overrides.task if not o.startswith(("action=", "rows="))]
    return shlex.join(["python", "-m", "amtml_pl.cache", f"action={action}", *told])


def short(value: object) -> str:
    """A part of a fingerprint on one line."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {short(child)}" for key, child in value.items() if child not in (None, [], {})
        )
    if isinstance(value, list):
        return "[" + ", ".join(short(child) for child in value) + "]"
    text = str(value)
    return text if len(text) < 20 or " " in text or "." in text else text[:12]


def remove_unused(config: DictConfig) -> None:
    """Removes the stores that no existing run has used and the command's experiment would not use."""
    root = Path(config.paths.cache)
    needed = {store.folder.resolve() for store in own_stores(config)}
    unused = [
        store
        for store in stores_below(root)
        if store.folder.resolve() not in needed
        and not any((Path(user["run"]) / "run.json").exists() for user in store.users())
    ]
    if not unused:
        console.print(f"Every store in {root.resolve()} is referred to by a run or by this experiment.")
        return
    console.print("No run that exists refers to these, nor does the experiment of this command:")
    for store in unused:
        console.print(f"  {store.folder.relative_to(root)}  {decimal(store.bytes_on_disk())}")
    freed = sum(store.bytes_on_disk() for store in unused)
    try:
        for store in unused:
            shutil.rmtree(store.folder)
    except OSError as error:
        raise UserError(
            f"{error.filename} cannot be removed: {error.strerror}.", fix=f"chmod -R u+w '{root}'"
        ) from error
    console.print(f"Removed, {decimal(freed)} freed.")
