"""The run folder: what it holds, who may read it, and how nothing half-written is taken for whole."""

from __future__ import annotations

import csv
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint

from amtml_pl.errors import UserError

Status = Literal["completed", "failed", "interrupted"]
FORMAT = 1


class RunFolder:
    """One run's folder: ``config.yaml``, ``run.json``, ``checkpoints/``, ``metrics.csv``, event files.

    Args:
        path: the folder; created by the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record_file = path / "run.json"
        self.config_file = path / "config.yaml"
        self.metrics_file = path / "metrics.csv"
        self.weights_file = path / "student.safetensors"
        self.best_checkpoint = path / "checkpoints" / "best.ckpt"
        self.last_checkpoint = path / "checkpoints" / "last.ckpt"

    def record(self) -> dict[str, Any] | None:
        """What ``run.json`` says; None where there is none.

        Raises:
            UserError: if the file cannot be read as a run's record of this format.
        """
        if not self.record_file.exists():
            return None
        try:
            record = json.loads(self.record_file.read_text())
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.record_file} is not a run's record: {error}.", fix=f"rm -r '{self.path}'"
            ) from error
        if not isinstance(record, dict) or record.get("format") != FORMAT:
            got = record.get("format") if isinstance(record, dict) else type(record).__name__
            raise UserError(f"{self.record_file} has format {got}; expected {FORMAT}.", fix="force=true")
        return record

    def completed(self) -> dict[str, Any] | None:
        """The record of a run that came to its end, None otherwise."""
        record = self.record()
        return record if record is not None and record["status"] == "completed" else None

    def write_record(self, status: Status, **fields: Any) -> None:  # noqa: ANN401
        """Replaces ``run.json`` in one instant."""
        record = {"format": FORMAT, "status": status, **fields}
        write_text(self.record_file, json.dumps(record, indent=2, default=str) + "\n")

    def clear(self) -> None:
        """Removes what an earlier run left, so that ``force=true`` starts from nothing."""
        leftovers = [self.record_file, self.metrics_file, self.weights_file]
        events = self.path.glob("events.out.tfevents.*")
        for file in (*leftovers, self.best_checkpoint, self.last_checkpoint, *events):
            file.unlink(missing_ok=True)


def write_text(file: Path, text: str) -> None:
    """Writes a text file so that a reader sees the old one or the new one, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(file)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints appear under their name only when they are whole.

    Lightning's own transaction writes into the system's temporary folder and moves from there, which is
    a copy, and so can be cut off, where that is another file system.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:  # noqa: ANN401
        """Writes beside the target, then renames."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        super().save_checkpoint(checkpoint, temporary, storage_options)
        temporary.replace(target)


def checkpoint_callbacks(folder: RunFolder) -> list[Callback]:
    """``best.ckpt`` by validation accuracy, ``last.ckpt`` from the start of the fit and after each epoch."""
    directory = folder.best_checkpoint.parent
    best = ModelCheckpoint(
        directory, "best", monitor="val/acc", mode="max", enable_version_counter=False, save_weights_only=True
    )
    return [best, LastCheckpoint(folder.last_checkpoint)]


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt`` resumable from the first step on: an interrupted epoch is repeated from its start.

    Args:
        file: where it lies.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the untrained state, unless the fit resumes from a later one."""
        if not self.file.exists():
            trainer.save_checkpoint(self.file)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves the state after an epoch and its validation."""
        trainer.save_checkpoint(self.file)


class EpochTable(Checkpoint):
    """``metrics.csv``: one row per epoch with everything that was logged.

    Lightning's CSVLogger deletes the file of the run that it resumes; this one keeps the rows of the
    epochs before and drops those that are about to be repeated. It is a ``Checkpoint`` because Lightning
    calls those last, after the module has logged its own sums of the epoch.

    Args:
        file: where it lies.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: list[dict[str, Any]] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the rows of the epochs before a resumed one."""
        if self.file.exists():
            with self.file.open(newline="") as lines:
                self.rows = [
                    row for row in csv.DictReader(lines) if int(row["epoch"]) < trainer.current_epoch
                ]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the epoch's row."""
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": rate, **metrics})
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        temporary = self.file.with_name(f".{self.file.name}.{os.getpid()}")
        with temporary.open("w", newline="") as lines:
            table = csv.DictWriter(lines, columns, restval="")
            table.writeheader()
            table.writerows(self.rows)
        temporary.replace(self.file)


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a result."""
    packages = ("amtml-pl", "torch", "torchvision", "pytorch-lightning", "timm", "numpy")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout that the package is run from and whether it has changes; None outside of one."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(here), *arguments]  # the checkout of the package, not the user's folder
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603

    try:
        if not (Path(git("rev-parse", "--show-toplevel")) / "src" / "amtml_pl").samefile(here):
            return None
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None
