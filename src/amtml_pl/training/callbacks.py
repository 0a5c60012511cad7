"""Callbacks of a fit: a row and a line per epoch, and what the run has cost so far."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn

from amtml_pl.distill.module import Observer
from amtml_pl.distill.non_finite import NonFiniteGuard
from amtml_pl.distill.timing import Spending
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.collectives import all_gather_object
from amtml_pl.system.console import console, is_watched
from amtml_pl.system.files import write_text
from amtml_pl.system.signals import StopRequest
from amtml_pl.training.checkpoints import LastCheckpoint
from amtml_pl.training.progress import FitProgress
from amtml_pl.types import Batch, Step


def run_callbacks(
    folder: RunFolder,
    spent: Spending,
    every_seconds: float | None,
    stop: StopRequest | None,
    observers: Sequence[Checkpoint] = (),
) -> list[Callback]:
    """The guard, the accounts, ``best.ckpt``, the table of epochs, ``last.ckpt``, and the progress.

    The table is written before ``last.ckpt``: a fit that is killed between the two repeats the end of the
    epoch and writes its row again, instead of never. So are the epochs of those that only look.
    """
    best = BestCheckpoint(
        folder.best_checkpoint.parent,
        folder.best_checkpoint.stem,
        monitor="val/acc",
        mode="max",
        enable_version_counter=False,
        save_weights_only=True,
    )
    progress = FitProgress() if is_watched(console) else EpochLines()
    last = LastCheckpoint(folder.last_checkpoint, every_seconds, stop)
    table = EpochTable(folder.metrics_file)
    return [NonFiniteGuard(), Accounts(spent), best, table, *observers, last, progress]


class Accounts(Observer):
    """Keeps what a fit costs over all the sessions that it takes."""

    def __init__(self, spent: Spending) -> None:
        self.spent = spent

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock of this session."""
        self.spent.started = time.perf_counter()

    def saw_step(self, step: Step, batch: Batch) -> None:
        """Counts the images of all processes."""
        self.spent.images_seen += len(step.labels)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps what has been spent so far."""
        checkpoint["spent"] = {**self.spent.state(), "teacher_passes": passes_of_all_ranks(self.spent)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Counts on from there, where it is a fit that goes on."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self.spent.resume_from(checkpoint["spent"])
        if not trainer.is_global_zero:
            self.spent.teacher_passes = {}  # of all ranks until then; the first one has taken them over


def passes_of_all_ranks(spent: Spending) -> dict[str, int]:
    """Images that each teacher has looked at, for the cache that all ranks fill."""
    total = Counter[str]()
    for of_one_rank in all_gather_object(spent.teacher_passes):
        total.update(of_one_rank)
    return dict(total)


class BestCheckpoint(ModelCheckpoint):
    """Lightning's, which forgets the best epoch so far where the run's folder has moved meanwhile."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the state over, in the folder that it is in now."""
        here: dict[str, Any] = {"dirpath": self.dirpath}
        for key in ("best_model_path", "last_model_path", "kth_best_model_path"):
            here[key] = self.here(state_dict[key])
        here["best_k_models"] = {self.here(f): score for f, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **here})
        self.current_score = state_dict["current_score"]  # Lightning saves it and does not take it over

    def here(self, file: str) -> str:
        """A checkpoint's path in this folder; an empty one stays empty."""
        return str(Path(str(self.dirpath)) / Path(file).name) if file else ""


class EpochTable(Checkpoint):
    """``metrics.csv``: one row per epoch with everything that was logged.

    Its rows are in ``last.ckpt``. A resumed run writes the file anew from there, whatever has happened to it.
    It is a ``Checkpoint`` because Lightning calls those last, after the module has logged its own sums.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rate = 0.0
        self.rows: list[dict[str, Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the rows for a checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows that the checkpoint holds; without any, remove the file."""
        if trainer.is_global_zero:
            self.write()

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Notes the epoch's learning rate, which Lightning changes before the epoch's end is announced."""
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the epoch's row."""
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": self.rate}
        self.rows.append(row | metrics)
        self.write()

    def write(self) -> None:
        """Replace the file; without rows there is none."""
        if not self.rows:
            self.file.unlink(missing_ok=True)
            return
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = io.StringIO(newline="")
        table = csv.DictWriter(lines, columns, restval="")
        table.writeheader()
        table.writerows(self.rows)
        write_text(self.file, lines.getvalue())


def epochs_in(checkpoint: Mapping[str, Any]) -> int:
    """Return how many epochs a checkpoint has in its table."""
    return len(checkpoint.get("callbacks", {}).get(EpochTable.__qualname__, {"rows": ()})["rows"])


class EpochLines(Callback):
    """One line per epoch, where there is no terminal for a progress bar."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says how far the fit is."""
        if trainer.state.fn == TrainerFn.FITTING and trainer.is_global_zero:
            accuracy = float(trainer.callback_metrics["val/acc"])
            epoch = trainer.current_epoch + 1
            console.print(f"epoch {epoch}/{trainer.max_epochs}: val/acc {accuracy:.4f}")
