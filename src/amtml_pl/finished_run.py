"""A run that has come to its end, opened for looking into it: ``from amtml_pl import load_run``."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from yaml import YAMLError

from amtml_pl import assemble
from amtml_pl.checkpoint_file import read_checkpoint, refuse_other_network
from amtml_pl.data import PackedDataModule
from amtml_pl.errors import UserError
from amtml_pl.execution import set_execution
from amtml_pl.features import TappedNetwork
from amtml_pl.packing import pack
from amtml_pl.recorded_teachers import RecordedTeacher, kept_store, recorded_teachers
from amtml_pl.run_record import absent_fields
from amtml_pl.runs import RunFolder
from amtml_pl.schema import DATASET, rule_problems
from amtml_pl.splits import SplitRows
from amtml_pl.types import SplitName, TeacherOutputs

Which: TypeAlias = Literal["best", "last"]
NODES = ("student", "dataset", "data", "teacher", "trainer", "paths")
TEACHER_KEYS = {"network", "mean", "std", "class_map", "weights", "pretrained"}


def load_run(
    folder: Path | str,
    *,
    data: Path | str | None = None,
    cache: Path | str | None = None,
    teachers: Path | str | None = None,
) -> FinishedRun:
    """Opens the folder of a completed run; it may have been moved, and its teachers may be gone.

    Args:
        folder: with ``run.json`` and ``config.yaml``, as ``amtml_pl.train`` has left it.
        data: where raw and packed images lie; None takes the place that the run recorded.
        cache: where teachers' outputs lie; None likewise.
        teachers: where trained teachers lie; None likewise.

    Returns:
        The run. Nothing but its record and configuration has been read.

    Raises:
        UserError: if the folder is no run's, the run failed or is not finished, or its record is damaged or
            of another format.
    """
    run = RunFolder(Path(folder).resolve())
    record = completed_record(run)
    config = read_config(run)
    given = {"data": data, "cache": cache, "teachers": teachers}
    paths = {name: Path(place or config.paths[name]).resolve() for name, place in given.items()}
    return FinishedRun(run.path, record, config, paths)


@dataclass(frozen=True)
class FinishedRun:
    """A completed run.

    Attributes:
        path: its folder.
        record: what ``run.json`` says.
        config: what ``config.yaml`` says, resolved.
        paths: the roots ``data``, ``cache`` and ``teachers``.
    """

    path: Path
    record: Mapping[str, Any]
    config: DictConfig
    paths: Mapping[str, Path]

    def student(self, checkpoint: Which = "best", taps: Sequence[str] = ()) -> TappedNetwork:
        """The trained student, in evaluation mode on the CPU; it normalises its images itself.

        Args:
            checkpoint: of the ``best`` epoch by validation accuracy, or of the ``last`` one.
            taps: dotted paths of modules whose outputs are wanted too.

        Raises:
            UserError: if the checkpoint is missing, damaged, or of another network.
        """
        file = self.checkpoint_file(checkpoint)
        state = read_checkpoint(file)["state_dict"]
        about = self.config.dataset
        network = TappedNetwork(
            assemble.build(self.config.student), mean=list(about.mean), std=list(about.std), taps=taps
        )
        set_execution(network.network, channels_last=bool(self.config.get("channels_last")), compiled=False)
        own = {name.removeprefix("student."): t for name, t in state.items() if name.startswith("student.")}
        refuse_other_network(own, network.state_dict(), file)
        network.load_state_dict(own)
        return network.requires_grad_(False).eval()

    def checkpoint_file(self, checkpoint: Which) -> Path:
        """Where a checkpoint lies.

        Raises:
            UserError: if it is not there.
        """
        folder = RunFolder(self.path)
        files = {"best": folder.best_checkpoint, "last": folder.last_checkpoint}
        if not files[checkpoint].is_file():
            there = [name for name, file in files.items() if file.is_file()]
            raise UserError(
                f"There is no checkpoint {files[checkpoint]}.",
                fix=f"checkpoint={there[0]}" if there else f"{self.record['command']} force=true",
            )
        return files[checkpoint]

    def metrics(self) -> dict[str, list[float | None]]:
        """Everything that was logged, one column by name with one value per epoch, None where there is none.

        ``pandas.DataFrame(run.metrics())`` makes a data frame of it.

        Raises:
            UserError: if ``metrics.csv`` is missing or holds something else.
        """
        file = RunFolder(self.path).metrics_file
        try:
            with file.open(newline="", encoding="utf-8") as lines:
                rows = [*csv.DictReader(lines, strict=True)]
            columns = [*rows[0]] if rows else []
            return {name: [float(row[name]) if row[name] else None for row in rows] for name in columns}
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise UserError(
                f"{file} cannot be read as a table of epochs: {error}.",
                fix=f"{self.record['command']} force=true",
            ) from error

    def teacher_weights(self) -> dict[str, list[float | None]]:
        """The mean weight of each teacher in every epoch, in [0, 1]; empty without teachers."""
        columns = self.metrics()
        return {name: columns[f"weight/{name}"] for name in self.teacher_names if f"weight/{name}" in columns}

    @property
    def teacher_names(self) -> tuple[str, ...]:
        """The M teachers, in the order of their outputs."""
        return tuple(teacher.name for teacher in self.teachers)

    @cached_property
    def teachers(self) -> tuple[RecordedTeacher, ...]:
        """What is known of each teacher; none is loaded."""
        return recorded_teachers(self.config, self.record, self.paths)

    @cached_property
    def data(self) -> PackedDataModule:
        """The images that the run was trained, selected and tested on; packed again where they are not.

        Raises:
            UserError: if they are missing, or are others now.
        """
        packed = pack(assemble.dataset_source(self.config), self.paths["data"] / "packed")
        about = self.record["dataset"]
        if packed.digest != about["digest"]:
            raise UserError(
                f"{self.path} was trained on other images of {about['name']!r} "
                f"(digest {about['digest'][:12]}) than are packed now ({packed.digest[:12]}) in "
                f"{packed.folder}.",
                fix="paths.data=FOLDER, where the run's own images lie",
            )
        return assemble.data_module(self.config, packed)

    def split(self, name: SplitName) -> SplitRows:
        """The images of one of the run's splits.

        Raises:
            UserError: as `data`, or if there is no such split.
        """
        found = {"train": self.data.train_split, "val": self.data.val_split, "test": self.data.test_split}
        return found[name]()

    def teacher_outputs(self, split: SplitName = "train", view: int = 1) -> TeacherOutputs:
        """What the teachers gave for a whole split, from the cache; no teacher is asked.

        Args:
            split: ``train``, with the hints; ``val`` and ``test``, where the cache holds any, without.
            view: which augmented version of the training images, from 1; the others have no versions.

        Returns:
            Logits ``(N, M, K)`` and hints, in the order of the split.

        Raises:
            UserError: if the run has no teachers, or the cache does not hold all of it any more.
        """
        if not self.teachers:
            raise UserError(f"{self.path} is a run without teachers.")
        if split == "train":
            return self.training_outputs(view)
        logits = [self.cached_logits(teacher, split) for teacher in self.teachers]
        absent = [name for name, found in zip(self.teacher_names, logits, strict=True) if found is None]
        if absent:
            raise self.not_cached(f"the {split} logits of {', '.join(absent)}")
        return TeacherOutputs(self.teacher_names, torch.stack([t for t in logits if t is not None], dim=1))

    def training_outputs(self, view: int) -> TeacherOutputs:
        """A view of the stores that the run's record names."""
        root = self.paths["cache"] / str(self.config.dataset.name)
        found: dict[str, Tensor] = {}
        for name in self.record.get("cache", {}).get("stores", []):
            folder = root / name
            if not folder.resolve().is_relative_to(root.resolve()) or not folder.is_dir():
                raise self.not_cached(f"the store {name}")
            store = kept_store(folder)
            if not store.is_complete(view):
                raise self.not_cached(f"view {view} of {name}, which has the views {store.views()}")
            store.verify(view)
            found[f"{store.teacher}/{store.tensor}"] = store.open(view).whole()
        if absent := [name for name in self.teacher_names if f"{name}/logits" not in found]:
            raise self.not_cached(f"the logits of {', '.join(absent)}")
        logits = torch.stack([found.pop(f"{name}/logits") for name in self.teacher_names], dim=1)
        return TeacherOutputs(self.teacher_names, logits, found)

    def cached_logits(self, teacher: RecordedTeacher, split: SplitName) -> Tensor | None:
        """A teacher's logits for validation or test images, ``(N, K)``; None where the cache has none."""
        rows = self.split(split).rows
        own = hashlib.sha256(rows.numpy().tobytes()).hexdigest()[:16]
        return teacher.cached_logits(self.data.digest, split, own)

    def not_cached(self, what: str) -> UserError:
        """What to say of outputs that are not there."""
        return UserError(
            f"The cache in {self.paths['cache']} does not hold {what}.",
            fix="load_run(..., cache=FOLDER) where it lies now, or "
            "python -m amtml_pl.cache action=build with the overrides of the run",
        )


def completed_record(folder: RunFolder) -> dict[str, Any]:
    """The record of a run that can be looked into.

    Raises:
        UserError: if there is none.
    """
    if not folder.path.is_dir():
        raise UserError(
            f"{folder.path} is not a folder.",
            fix="run=FOLDER: the folder that amtml_pl.train printed at its end",
        )
    anew = "copy the whole folder again, or repeat the run with this version of amtml_pl and force=true"
    try:
        record = folder.record()
    except UserError as error:
        raise UserError(error.what, fix=anew) from error
    if record is None:
        below = sorted(folder.path.glob("**/run.json"))[:1]
        raise UserError(
            f"{folder.path} is not the folder of a run: it has no run.json.",
            fix=f"run='{below[0].parent}'" if below else "run=FOLDER: what amtml_pl.train printed at its end",
        )
    status = record["status"]
    if status != "completed":
        said = {"failed": "failed", "interrupted": "is still going" if is_busy(folder) else "was interrupted"}
        why = f" ({record['error']})" if status == "failed" and record.get("error") else ""
        raise UserError(
            f"The run in {folder.path} {said[status]}{why}; expected a completed one.",
            fix=str(record.get("command", "the command that began it")) + " goes on with it",
        )
    if absent := absent_fields(record):
        raise UserError(f"{folder.record_file} lacks {', '.join(absent)}.", fix=anew)
    return record


def is_busy(folder: RunFolder) -> bool:
    """Whether a process works in a run's folder."""
    file = folder.path / ".lock"
    if not file.exists():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that cannot be written, and so is nobody's
        return False


def read_config(folder: RunFolder) -> DictConfig:
    """A run's configuration.

    Raises:
        UserError: if it is missing or damaged.
    """
    file, fix = folder.config_file, "copy the whole folder of the run again, or repeat it with force=true"
    try:
        config = OmegaConf.load(file)
        tree: Any = OmegaConf.to_container(config, resolve=True)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{file} cannot be read: {str(error).splitlines()[0]}.", fix=fix) from error
    if not isinstance(config, DictConfig) or not all(isinstance(tree.get(node), dict) for node in NODES):
        raise UserError(f"{file} is not a run's configuration: it lacks some of {', '.join(NODES)}.", fix=fix)
    wrong = [*rule_problems(tree["dataset"], DATASET, "dataset", known=tree["dataset"].keys())]
    wrong += [
        f"paths.{name} is no text"
        for name in ("data", "cache", "teachers")
        if not isinstance(tree["paths"].get(name), str)
    ]
    for name, node in tree["teacher"].items():
        lacks = TEACHER_KEYS - (node.keys() if isinstance(node, dict) else set())
        wrong += [f"teacher.{name} lacks {key}" for key in sorted(lacks)]
    if wrong:
        raise UserError(f"{file} is damaged: {'; '.join(wrong[:3])}.", fix=fix)
    return config
