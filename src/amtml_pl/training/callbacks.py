"""Callbacks of a fit: a row and a line per epoch, and its cost."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, Checkpoint, ModelCheckpoint, WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn

from amtml_pl.distill.observer import Observer
from amtml_pl.distill.timing import Spending
from amtml_pl.system.collectives import all_gather_object
from amtml_pl.system.console import console
from amtml_pl.system.files import write_text
from amtml_pl.types import Batch, Step


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
            self.spent.teacher_passes.clear()  # rank 0 has restored those of all ranks


def passes_of_all_ranks(spent: Spending) -> dict[str, int]:
    """Return the number of images that each teacher has seen, over all ranks."""
    total = Counter[str]()
    for of_one_rank in all_gather_object(spent.teacher_passes):
        total.update(of_one_rank)
    return dict(total)


class BestCheckpoint(ModelCheckpoint):
    """Lightning's checkpoint of the selected epoch, which also survives a moved run folder."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with paths in the present folder."""

        def here(file: str) -> str:
            return str(Path(str(self.dirpath)) / Path(file).name) if file else ""

        keys = ("best_model_path", "last_model_path", "kth_best_model_path")
        changed: dict[str, Any] = {"dirpath": self.dirpath, **{key: here(state_dict[key]) for key in keys}}
        changed["best_k_models"] = {here(f): score for f, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **changed})
        self.current_score = state_dict["current_score"]  # Lightning saves it and does not restore it

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Save the average of the weights, where a callback keeps one, as it was validated."""
        averages = [each for each in cast("Any", trainer).callbacks if isinstance(each, WeightAveraging)]
        for average in averages:
            average.on_validation_epoch_start(trainer, trainer.lightning_module)
        super()._save_checkpoint(trainer, filepath)
        for average in averages:
            average.on_validation_epoch_end(trainer, trainer.lightning_module)


class EpochTable(Checkpoint):
    """``metrics.csv``: one row per epoch with everything that was logged, which the loggers get too.

    Its rows are in ``last.ckpt``, from which a resumed run rewrites the file and so repairs any damage.
    It is a ``Checkpoint`` because Lightning calls those last, after the module has logged its sums.
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
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the epoch's learning rate before Lightning changes it."""
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row."""
        if not trainer.is_global_zero:
            return
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "lr": self.rate}
        self.rows.append(row | {name: float(value) for name, value in trainer.callback_metrics.items()})
        self.write()
        self.pass_on(trainer)

    def pass_on(self, trainer: pl.Trainer) -> None:
        """Pass the epoch's row to the loggers, which have its validation from Lightning.

        Lightning would pass it after the checkpoint, and a fit that stops in between would lose it.
        """
        step = trainer.fit_loop.epoch_loop._batches_that_stepped  # the step of Lightning's own callbacks
        row = {name: value for name, value in self.rows[-1].items() if name[:4] != "val/" and name != "step"}
        for logger in trainer.loggers:
            logger.log_metrics(row, step=step)
            logger.save()

    def teacher_weights(self) -> dict[str, float]:
        """Return the teachers' weights in the last row, which rank 0 alone has."""
        last = self.rows[-1] if self.rows else {}
        return {name: value for name, value in last.items() if name.startswith("weight")}

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
    """Return the number of epochs in a checkpoint's table."""
    return len(checkpoint.get("callbacks", {}).get(EpochTable.__qualname__, {"rows": ()})["rows"])


class EpochLines(Callback):
    """Callback that prints one line per epoch, for an output that is not a terminal."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Print the epoch and its validation accuracy; without validation, its training accuracy."""
        if trainer.is_global_zero:
            measured = {**trainer.callback_metrics, **pl_module.means.so_far()}
            name = "val/acc" if "val/acc" in measured else "train/acc"
            epoch, accuracy = trainer.current_epoch + 1, float(measured[name])
            console.print(f"epoch {epoch}/{trainer.max_epochs}: {name} {accuracy:.4f}")
