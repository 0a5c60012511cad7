"""Name a run's folder by a hash of everything that determines its result."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from itertools import accumulate
from pathlib import Path
from typing import Any

from amtml_pl.config.build import Config, plain_values
from amtml_pl.config.ignored import leave_out_teachers
from amtml_pl.config.key import Identity
from amtml_pl.config.key_roles import changes_result, changing_callbacks, identified
from amtml_pl.config.network_keys import has_own_weights
from amtml_pl.config.overrides import key_of
from amtml_pl.config.schema import KEYS
from amtml_pl.config.teacher_recipe import recipe
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.files import file_digest, short_digest
from amtml_pl.system.limits import cores

LONGEST_WORD = 24  # letters of an override in a folder's name
LONGEST_LABEL = 160  # letters of all overrides


def share_of_cores(jobs: int) -> int:
    """Return ``${amtml.share_of_cores:N}``: this machine's cores per job, at least one."""
    return max(1, cores() // jobs)


def resolve_run_folder(*, _root_: Config) -> str:
    """Return ``${amtml.run_folder:}``, from the whole configuration that Hydra has composed."""
    choices = _root_.hydra.runtime.choices
    try:
        typed = plain_values(_root_.hydra.overrides, resolve=False)["task"]
        label = str(choices.student) if _root_.role == "teacher" else run_label(typed)
        own = deepcopy(_root_)
        leave_out_teachers(own, choices.get("method"))
        return str(run_folder(own, choices.get("experiment"), label))
    except Exception:  # not a valid configuration: `check` reports it later
        paths = _root_.get("paths")
        outputs = paths.get("outputs") if isinstance(paths, Config) else None
        return str(Path(str(outputs or "outputs")).resolve() / "runs" / "invalid")


def run_folder(config: Config, experiment: str | None, label: str) -> Path:
    """Return ``<outputs>/runs/<experiment>/<label>-<hash>``, the same for a repeated command.

    A teacher's folder is ``<teachers>/<dataset>/<label>-<hash>``. ``label`` is the readable part of the
    name, the overrides or the network. An existing folder with that hash is returned with any label.
    A run with a debug preset is in ``<outputs>/debug`` or ``<teachers>/debug``.
    """
    debug = config.get("debug") is not None
    if config.role == "teacher":
        parent = Path(config.paths.teachers) / ("debug" if debug else "") / str(config.dataset.name)
    else:
        parent = Path(config.paths.outputs) / ("debug" if debug else "runs") / (experiment or "no_experiment")
    digest = run_hash(config)
    return found_or_new(parent, label.rpartition("/")[2], digest).resolve()  # timm/MODEL is a choice


def found_or_new(parent: Path, label: str, digest: str) -> Path:
    """Return the folder with a hash under any label, or a new path."""
    return next(iter(sorted(parent.glob(f"*-{digest}"))), parent / f"{label}-{digest}")


def study_hash(config: Config) -> str:
    """Return the hash that the runs of all seeds share."""
    any_seed = deepcopy(config)
    any_seed.seed = 0
    return run_hash(any_seed, start=study_of_start(any_seed.init_from))


def run_hash(config: Config, start: str | None = None) -> str:
    """Return eight hexadecimal digits of everything that can change the result.

    `amtml_pl.config.schema` declares which keys count. A temperature that no selected term reads does not.
    Of a teacher counts the content of its recipe or of its weights file, not their names.

    Args:
        config: of the run.
        start: what stands for ``init_from``; None takes the content of the weights.
    """
    tree = {name: value for name, value in plain_values(config, resolve=False).items() if name in KEYS}
    tree["paths"] = {name: f"<{name}>" for name in config.paths}
    resolved = plain_values(tree)
    resolved["init_from"] = start or identified_start(resolved["init_from"])
    resolved["extend"] = identified_origin(resolved["extend"])
    for name, node in resolved["teacher"].items():
        identify_teacher(config, name, node)
    used = {name: coef for name, coef in resolved["coef"].items() if name in resolved["loss"]}
    resolved["coef"] = {name: float(coef) for name, coef in used.items()}  # 1 is 1.0
    where: list[Identity] = ["always"]
    if config.teacher:
        where += ["teachers", "cached"] if resolved.get("teacher_source") == "cached" else ["teachers"]
    # Keys are sorted, but the order of the teachers is the order of their outputs' columns, and terms are
    # built, with parameters that they draw, in their order. One term has none: trained teachers are found.
    terms = list(config.loss)
    orders = [list(config.teacher), *([terms] if len(terms) > 1 else [])]
    counted = identified(resolved, KEYS, where)
    if callbacks := changing_callbacks(counted.pop("callbacks", {})):
        counted["callbacks"] = callbacks
    return short_hash([counted, *orders], sort_keys=True)


def identify_teacher(config: Config, name: str, node: dict[str, Any]) -> None:
    """Replace names and limits in a teacher's node by what determines its weights."""
    if has_own_weights(config.teacher[name]):
        node["weights"] = identified_weights(node["weights"])
    else:
        try:
            own = recipe(config, name)
        except UserError:  # `check` reports it; the recipe's name stays in the node
            return
        node.pop("weights", None)
        node["trained_by"] = run_hash(own)
    for key in ("recipe", "recipe_overrides", "seed"):
        node.pop(key, None)


def identified_weights(weights: dict[str, Any]) -> dict[str, Any]:
    """Return how weights are read, and their content in place of the names of files.

    A published file counts by its checksum, so that its download changes no run's name.
    """
    path, reading = weights["path"], {key: weights[key] for key in ("key", "strip_prefixes", "rename")}
    if weights["url"] is not None:
        checksum = weights["sha256"]
        return {**reading, "path": checksum.lower() if checksum else f"{weights['url']}#{weights['member']}"}
    if weights["run"] is not None:
        path = RunFolder(Path(weights["run"])).weights_file
    return {**reading, "path": None if path is None else file_digest(Path(path))}


def identified_start(start: str | None) -> str | None:
    """Return the digest of initial weights, which a file or a run's folder holds."""
    if start is None:
        return None
    path = Path(start)
    return file_digest(RunFolder(path).weights_file if path.is_dir() else path) or start


def study_of_start(start: str | None) -> str | None:
    """Return the study of initial weights from a run, and the digest of a file."""
    return identified_origin(start) if start and Path(start).is_dir() else identified_start(start)


def identified_origin(run: str | None) -> str | None:
    """Return the study of a completed run, which all seeds share; else its folder."""
    if run is None:
        return None
    try:
        record = RunFolder(Path(run)).completed()
    except UserError:  # the plan reports it
        record = None
    return run if record is None else record.study


def run_label(overrides: list[str], left_out: tuple[str, ...] = ("experiment", "sweep")) -> str:
    """Return the overrides of a command as part of a folder's name.

    The method is first. Long overrides are last, and lose the beginning of their keys, not their values.
    Those that do not fit are left out.
    """
    words = [re.sub(r"[^A-Za-z0-9_.]+", "-", o).strip("-") for o in result_overrides(overrides, left_out)]
    words.sort(key=lambda word: (not word.startswith("method-"), len(word) > LONGEST_WORD))
    shortened = [word if len(word) <= LONGEST_WORD else shorten(word) for word in words]
    ends = accumulate(len(word) + 1 for word in shortened)
    fitting = [word for word, end in zip(shortened, ends, strict=True) if end <= LONGEST_LABEL + 1]
    return "_".join(fitting) or "default"


def shorten(word: str) -> str:
    """Return the end of a long override, from a word of its key if possible."""
    end = word[-LONGEST_WORD - 1 :]
    return re.sub(r"^[^-.]*[-.](?=.*-)", "", end)[-LONGEST_WORD:].strip("-._")


def sweep_hash(overrides: list[str], sweeper: dict[str, Any]) -> str:
    """Return a hash of a sweep's overrides and of the ``params`` of Hydra's sweeper node."""
    return short_hash([result_overrides(overrides), sweeper["_target_"], sweeper.get("params")])


def short_hash(values: list[Any], *, sort_keys: bool = False) -> str:
    """Return eight hexadecimal digits of the SHA-256 of plain values."""
    text = json.dumps(values, sort_keys=sort_keys, default=str)
    return short_digest(text, digits=8)


def result_overrides(overrides: list[str], left_out: tuple[str, ...] = ()) -> list[str]:
    """Return the overrides that can change a result, without some keys."""
    return [o for o in overrides if (key := key_of(o)) not in left_out and changes_result(key)]
