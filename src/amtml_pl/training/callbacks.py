"""Callbacks of a fit: a row and a line per epoch, and its cost."""

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

from amtml_pl.distill.non_finite import NonFiniteGuard
from amtml_pl.distill.observer import Observer
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
    """Return the callbacks of a run, in the order they must act.

    The table is written before ``last.ckpt``: a fit that is killed between the two repeats the end of the
    epoch and writes its row again, instead of never. Observers act before it for the same reason.
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
    """Callback that counts a fit's cost over all its sessions."""

    def __init__(self, spent: Spending) -> None:
        self.spent = spent

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of this session."""
        self.spent.started = time.perf_counter()

    def saw_step(self, step: Step, batch: Batch) -> None:
        """Count the images of all processes."""
        self.spent.images_seen += len(step.labels)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Save the cost so far."""
        checkpoint["spent"] = {**self.spent.state(), "teacher_passes": passes_of_all_ranks(self.spent)}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Continue counting from the saved cost, if a fit is resumed."""
        if trainer.state.fn != TrainerFn.FITTING:
            return
        self.spent.resume_from(checkpoint["spent"])
        if not trainer.is_global_zero:
            self.spent.teacher_passes.clear()  # of all ranks until then; the first one has taken them over


def passes_of_all_ranks(spent: Spending) -> dict[str, int]:
    """Return the number of images that each teacher has seen, over all ranks."""
    total = Counter[str]()
    for of_one_rank in all_gather_object(spent.teacher_passes):
        total.update(of_one_rank)
    return dict(total)


class BestCheckpoint(ModelCheckpoint):
    """Lightning's checkpoint of the best epoch, which also survives a moved run folder."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with paths in the present folder."""
        here: dict[str, Any] = {"dirpath": self.dirpath}
        for key in ("best_model_path", "last_model_path", "kth_best_model_path"):
            here[key] = self.here(state_dict[key])
        here["best_k_models"] = {self.here(f): score for f, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **here})
        self.current_score = state_dict["current_score"]  # Lightning saves it and does not take it over

    def here(self, file: str) -> str:
        """Return a checkpoint's path in the present folder; an empty one stays empty."""
        return str(Path(str(self.dirpath)) / Path(file).name) if file else ""


class EpochTable(Checkpoint):
    """``metrics.csv``: one row per epoch with everything that was logged.

    Its rows are in ``last.ckpt``. A resumed run writes the file anew from there, which repairs any damage.
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
        """Restore the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the rows that the checkpoint has; without any, remove the file."""
        if trainer.is_global_zero:
            self.write()

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Note the epoch's learning rate before Lightning changes it."""
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row."""
        if not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": self.rate}
        self.rows.append(row | metrics)
        self.write()

    def write(self) -> None:
        """Replace the file; without rows, remove it."""
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
    """Callback that prints one line per epoch, for an output that is not a terminal."""

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the epoch and its validation accuracy."""
        if trainer.state.fn == TrainerFn.FITTING and trainer.is_global_zero:
            accuracy = float(trainer.callback_metrics["val/acc"])
            epoch = trainer.current_epoch + 1
            console.print(f"epoch {epoch}/{trainer.max_epochs}: val/acc {accuracy:.4f}")
