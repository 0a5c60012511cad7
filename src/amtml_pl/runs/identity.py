"""What a run is called: a folder named by everything that decides its result, and by nothing else."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from amtml_pl.config.teacher_recipe import has_own_weights, recipe
from amtml_pl.errors import UserError
from amtml_pl.system.limits import cores

# What does not change the result of a run, and therefore not the name of its folder.
NOT_PART_OF_THE_RUN = (
    "expected_defects",
    "doctor",
    "hydra",
    "benchmark",
    "checkpoint_minutes",
    "resume",
    "prepare",
    "force",
    "debug",
    "logger",
)
NOT_PART_OF_A_NODE = (
    ("student", r"stages|hint"),  # act through what reads them
    ("data", r"num_workers|eval_batch_size"),
    ("dataset", r"train_images"),
    ("cache", r"device|batch_size|channels_last|compile|probe"),
    ("dataset.source", r"mirrors"),
    ("trainer", r"enable_.*"),
)
# What acts only through the nodes that read it, where it is part of the run already.
READ_BY_OTHERS = (
    "temperature",
    "mixture",
    "weighting_lr",
    "hint_pool",
    "regression_stage",
    "regression_grid",
    "teacher_recipe",
)
READ_WITH_TEACHERS = ("weighting", "teacher_source", "cache")


def register_resolvers() -> None:
    """Makes known what YAML files ask for before the run begins.

    ``${amtml.run_folder:}`` names the run's folder; ``${amtml.share_of_cores:N}`` is how many cores each of
    N jobs can have on this machine.
    """
    OmegaConf.register_new_resolver("amtml.run_folder", resolve_run_folder, replace=True)
    OmegaConf.register_new_resolver("amtml.share_of_cores", share_of_cores, replace=True)


def share_of_cores(jobs: int) -> int:
    """How many of the cores that this process may use each of some jobs can have, one at least."""
    return max(1, cores() // jobs)


def resolve_run_folder(*, _root_: DictConfig) -> str:
    """The run's folder, from the whole configuration that Hydra has composed."""
    told = _root_.hydra
    choices = told.runtime.choices
    try:
        words: Any = OmegaConf.to_container(told.overrides.task)  # as typed: not resolved
        label = str(choices.student) if _root_.role == "teacher" else run_label(words)
        return str(run_folder(_root_, choices.get("experiment"), label))
    except Exception:  # a configuration of any shape: `check` says what is wrong, once the run has begun
        outputs = OmegaConf.select(_root_, "paths.outputs") if _root_.get("paths") else None
        return str(Path(str(outputs or "outputs")).resolve() / "runs" / "invalid")


def run_folder(config: DictConfig, experiment: str | None, label: str) -> Path:
    """Where a run keeps everything: found again by repeating the command.

    Args:
        config: the composed configuration.
        experiment: its name; None where the command chose none.
        label: the readable part of the folder's name, the overrides or the network.

    Returns:
        ``<outputs>/runs/<experiment>/<label>-<hash>``; for a teacher ``<teachers>/<dataset>/<label>-<hash>``.
        A folder with that hash that exists already under another label is taken.
    """
    if config.role == "teacher":
        parent = Path(config.paths.teachers) / str(config.dataset.name)
    else:
        parent = Path(config.paths.outputs) / "runs" / (experiment or "no_experiment")
    digest = run_hash(config)
    for existing in sorted(parent.glob(f"*-{digest}")):
        return existing.resolve()
    return (parent / f"{label}-{digest}").resolve()


def run_hash(config: DictConfig) -> str:
    """Eight hexadecimal digits of everything that can change the result, and of nothing else.

    So a temperature that no selected term reads, or a coefficient of a term that is not selected, leaves
    the run what it was, and a finished teacher is found again after such a key has been added. A teacher
    counts with the content of its recipe, or of its weights file, not with their names.
    """
    tree: Any = OmegaConf.to_container(config, resolve=False)
    tree["paths"] = {name: f"<{name}>" for name in config.paths}
    for key in NOT_PART_OF_THE_RUN:
        tree.pop(key, None)
    resolved: Any = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    for path, pattern in NOT_PART_OF_A_NODE:
        node = resolved
        for key in path.split("."):
            node = node[key]
        for key in [key for key in node if re.fullmatch(pattern, str(key))]:
            del node[key]
    for name, node in resolved["teacher"].items():
        identify_teacher(config, name, node)
    drop_neutral(resolved)
    used = {name: coef for name, coef in resolved["coef"].items() if name in resolved["loss"]}
    resolved["coef"] = {name: float(coef) for name, coef in used.items()}  # 1 is 1.0
    without_effect = READ_BY_OTHERS if config.teacher else (*READ_BY_OTHERS, *READ_WITH_TEACHERS)
    if config.get("teacher_source") == "live":
        without_effect = (*without_effect, "cache")
    for key in without_effect:
        resolved.pop(key, None)
    # Keys are sorted, but the order of the teachers is the order of their outputs' columns, and terms are
    # built, with parameters that they draw, in their order. One term has none: trained teachers are found.
    terms = list(config.loss)
    orders = [list(config.teacher), *([terms] if len(terms) > 1 else [])]
    text = json.dumps([resolved, *orders], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def drop_neutral(resolved: dict[str, Any]) -> None:
    """Leaves out options that are off, so that what ran before they existed keeps its name."""
    options = (
        (resolved, "channels_last"),
        (resolved, "compile"),
        (resolved["data"], "mixup"),
        (resolved["optimizer"], "fused"),
    )
    for node, key in options:
        if not node.get(key):
            node.pop(key, None)
    if resolved["trainer"].get("num_nodes") == 1:
        resolved["trainer"].pop("num_nodes")
    if resolved["loop"] == {"_target_": "amtml_pl.distill.step.DistillModule"}:
        resolved.pop("loop")
    for teacher in resolved["teacher"].values():
        if teacher.get("pool") is None:
            teacher.pop("pool", None)
        if not teacher.get("stages"):
            teacher.pop("stages", None)


def identify_teacher(config: DictConfig, name: str, node: dict[str, Any]) -> None:
    """Puts what decides a teacher's weights into its resolved node, in the place of names and limits."""
    node.pop("min_accuracy", None)
    if has_own_weights(config, name):
        path = config.teacher[name].weights.path
        node["weights"]["path"] = None if path is None else file_digest(Path(str(path)))
        for key in ("recipe", "recipe_overrides", "seed"):
            node.pop(key, None)
        return
    try:
        own = recipe(config, name)
    except UserError:  # `check` says so; the recipe's name stays in the node
        return
    for key in ("recipe", "recipe_overrides", "seed", "weights"):
        node.pop(key, None)
    node["trained_by"] = run_hash(own)


def file_digest(file: Path) -> str | None:
    """SHA-256 of a file's bytes; None where it cannot be read, which loading it reports."""
    try:
        state = file.stat()
        return digest_of_version(file, state.st_mtime_ns, state.st_size)
    except OSError:
        return None


@lru_cache
def digest_of_version(file: Path, _modified: int, _size: int) -> str:
    """SHA-256 of a file that is read again only where it has changed: a folder is named several times."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def run_label(overrides: list[str], left_out: tuple[str, ...] = ("experiment", "sweep")) -> str:
    """The overrides of a command as part of a folder's name."""
    words = [re.sub(r"[^A-Za-z0-9_.]+", "-", o).strip("-") for o in telling_overrides(overrides, left_out)]
    return "_".join(words)[:80] or "default"


def sweep_hash(overrides: list[str], sweeper: dict[str, Any]) -> str:
    """Eight hexadecimal digits of what makes the jobs of a sweep; not of where and how many at once they run.

    Args:
        overrides: of the sweep's command.
        sweeper: Hydra's node of the sweeper, of which ``params`` count.
    """
    text = json.dumps([telling_overrides(overrides), sweeper["_target_"], sweeper.get("params")], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def telling_overrides(overrides: list[str], left_out: tuple[str, ...] = ()) -> list[str]:
    """The overrides that are more than a place, a launcher, or a key that changes no result."""
    silent = ("paths", "launcher", *NOT_PART_OF_THE_RUN, *left_out)
    return [o for o in overrides if re.split(r"[.=]", o.lstrip("+~"))[0] not in silent]
