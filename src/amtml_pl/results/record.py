"""Read and check the record and the configuration of a completed run."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from amtml_pl.config.allowed_targets import group_problems
from amtml_pl.config.constructors import node_problems
from amtml_pl.config.data_keys import DATASET
from amtml_pl.config.network_keys import MAP_READING, STUDENT, TEACHER, WEIGHTS
from amtml_pl.config.rules import rule_problems
from amtml_pl.config.schema import KEYS
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord
from amtml_pl.system.plain_yaml import read_plain_yaml

NODES = ("student", "dataset", "data", "teacher", "trainer", "paths")
FOLDERS_SEARCHED = 1000  # for an example of a run's folder
WAIT = "wait until the run has ended, then repeat this command"
STUDENT_RULES = {key: STUDENT[key] for key in ("input_size", *MAP_READING)}
TEACHER_RULES = {
    key: TEACHER[key]
    for key in ("network", "hint", "mean", "std", "input_size", "class_map", "head", "weights", "pretrained")
} | {key: TEACHER[key] for key in ("pool", *MAP_READING)}


def completed_record(folder: RunFolder) -> RunRecord:
    """Return the record of a completed run.

    Raises:
        UserError: if there is none.
    """
    if not folder.path.is_dir():
        what = f"The run folder {folder.path} does not exist, or is not a folder."
        raise UserError(what, fix="use the run folder that amtml_pl.train printed at its end")
    try:
        record = folder.record()
    except UserError as error:
        raise UserError(
            error.what,
            fix="copy the run folder again, or repeat the run with force=true",
        ) from error
    if record is None:
        raise without_record(folder)
    if record.status != "completed":
        busy = folder.is_busy
        state = "running" if busy and record.status == "interrupted" else record.status
        why = f" Its error was: {record.error}" if record.error else ""
        raise UserError(
            f"The run in {folder.path} has not completed (got status {state}, expected completed).{why}",
            fix=WAIT if busy else record.command,
        )
    folder.refuse_changed(record, *folder.tables)
    return record


def without_record(folder: RunFolder) -> UserError:
    """Return the error for a folder without ``run.json``, which exists from the fit on."""
    if folder.is_busy:
        return UserError(
            f"The run in {folder.path} has not completed (got status running, expected completed).", fix=WAIT
        )
    if folder.lock_file.exists():
        return UserError(
            f"The run in {folder.path} was stopped before its training began (expected a completed run).",
            fix="repeat the training command of this run",
        )
    below = run_below(folder.path)
    return UserError(
        f"The folder {folder.path} is not a run folder: run.json is missing.",
        fix="use the run folder that amtml_pl.train printed at its end"
        if below is None
        else f"use a run folder, such as '{below}'",
    )


def run_below(folder: Path) -> Path | None:
    """Return a run's folder below another folder; None if none is found quickly."""
    for place, subfolders, files in islice(os.walk(folder), FOLDERS_SEARCHED):
        subfolders.sort()
        if "run.json" in files:
            return Path(place)
    return None


def read_config(folder: RunFolder, record: RunRecord) -> dict[str, Any]:
    """Return a run's configuration as plain values.

    Raises:
        UserError: if it is missing or damaged, or its teachers are not those of the record.
    """
    file, fix = folder.config_file, "copy the run folder again, or repeat the run with force=true"
    try:
        tree = read_plain_yaml(file)
    except (OSError, ValueError) as error:
        raise UserError(f"The file {file} cannot be read: {error!s:.400}.", fix=fix) from error
    if not isinstance(tree, dict) or not all(isinstance(tree.get(node), dict) for node in NODES):
        keys = ", ".join(NODES)
        raise UserError(f"The file {file} is not a run's configuration (expected the keys {keys}).", fix=fix)
    if wrong := [*config_problems(tree)]:
        raise UserError(f"The configuration {file} is damaged: {'; '.join(wrong[:3])}.", fix=fix)
    if sorted(record.teachers) != (named := sorted(map(str, tree["teacher"]))):
        raise UserError(
            f"The files {file} and {folder.record_file} differ in the teachers (got {named!s:.200}, expected "
            f"{sorted(record.teachers)!s:.200}).",
            fix=fix,
        )
    return tree


def config_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield mistakes in the parts of a configuration that an opened run reads."""
    yield from rule_problems(tree, {"seed": KEYS["seed"]}, "", known=tree.keys())
    yield from rule_problems(tree["dataset"], DATASET, "dataset", known=tree["dataset"].keys())
    student = tree["student"]
    yield from rule_problems(student, STUDENT_RULES, "student", known=student.keys())
    for name in ("data", "cache", "teachers"):
        if not is_place(tree["paths"].get(name)):
            yield f"paths.{name} is not the path of a folder"
    for name in ("weighting", "loop", "loss"):
        if not isinstance(tree.get(name, {}), dict):
            yield f"{name} is not a mapping"
    for name, node in tree["teacher"].items():
        if not isinstance(node, dict):
            yield f"teacher.{name} is not a mapping"
            continue
        yield from rule_problems(node, TEACHER_RULES, f"teacher.{name}", known=node.keys())
        if isinstance(weights := node.get("weights"), dict):
            yield from weights_problems(weights, f"teacher.{name}.weights")
    for path, node, groups in built_nodes(tree):
        yield from group_problems(node, groups, path)
        yield from node_problems(node, path)


def weights_problems(weights: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield mistakes in the place of a teacher's weights, and in how they are read."""
    given = {key: rule for key, rule in WEIGHTS.items() if key in weights or key == "path"}
    yield from rule_problems(weights, given, path, known=weights.keys())
    for key in ("path", "run"):
        if weights.get(key) is not None and not is_place(weights[key]):
            yield f"{path}.{key} is not the path of a file or folder"


def built_nodes(tree: Mapping[str, Any]) -> Iterator[tuple[str, object, tuple[str, ...]]]:
    """Yield the parts to build: path, node, and the groups of ``conf/`` allowed in it."""
    yield "student.network", tree["student"].get("network"), ("student",)
    yield "data", tree["data"], ("data", "augment")
    for name, node in tree["teacher"].items():
        if isinstance(node, dict):
            yield f"teacher.{name}.network", node.get("network"), ("student",)
    if tree.get("weighting"):
        yield "weighting", tree["weighting"], ("weighting",)
        yield "loop", tree.get("loop"), ("loop",)
    terms = tree.get("loss")
    for name, node in terms.items() if isinstance(terms, dict) else ():
        yield f"loss.{name}", node, ("loss",)


def is_place(value: object) -> bool:
    """Return True if a value can name a file or folder, existing or not."""
    if not isinstance(value, str):
        return False
    try:
        os.lstat(value)
    except ValueError:  # as of a name with a NUL in it
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True
