"""Checkpoints: written atomically, resumable at any step, and saved before a stop."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from amtml_pl.data.module import PackedDataModule
from amtml_pl.errors import UserError, first_line
from amtml_pl.system import ranks
from amtml_pl.system.collectives import any_rank, broadcast_object
from amtml_pl.system.files import replacing
from amtml_pl.system.signals import StopRequest


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint writer that replaces a file only by a whole new one.

    Lightning writes into the system's temporary folder and moves from there. On another file system that is
    a copy, which can be cut off.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write beside the target, then rename; raise a UserError if that fails."""
        target = Path(path)
        try:
            with replacing(target, mark="new") as temporary:
                super().save_checkpoint(checkpoint, temporary, storage_options)
                with temporary.open("rb") as written:
                    os.fsync(written.fileno())  # else a machine that loses power may keep the name alone
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError of its writer
            raise UserError(
                f"The checkpoint {target} cannot be written: {first_line(error)}. "
                f"{'The previous checkpoint is intact' if target.exists() else 'No checkpoint exists yet'}.",
                fix="free disk space or make the folder writable, then repeat the command",
            ) from error


class LastCheckpoint(Checkpoint):
    """Callback that keeps ``last.ckpt`` resumable to the step, from the first step on.

    Args:
        file: the checkpoint.
        data: receives the number of finished batches after each; its state is in every checkpoint.
        every_seconds: time between checkpoints within an epoch; None writes them at its end alone.
        stop: signals that end the fit after a checkpoint; None leaves them to Python.
    """

    def __init__(
        self, file: Path, data: PackedDataModule, every_seconds: float | None, stop: StopRequest | None
    ) -> None:
        self.file, self.data, self.every_seconds = file, data, every_seconds
        self.handles_signals, self.stop = stop is not None, stop or StopRequest()
        self.saved = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the untrained state, unless the fit resumes from a later one."""
        if self.handles_signals:
            self.stop.install()
        if not broadcast_object(self.file.exists()):
            self.save(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the batch; save within the epoch when due or stopping."""
        done = batch_idx + 1
        self.data.batches_done = done % int(trainer.num_training_batches)  # 0 after the last batch
        # After the last batch comes validation; between two optimiser steps gradients would be lost.
        if done >= trainer.num_training_batches or done % trainer.accumulate_grad_batches:
            return
        late = self.every_seconds is not None and time.monotonic() - self.saved >= self.every_seconds
        stop = self.stop.number is not None
        due, stopping = any_rank(late and ranks.is_rank_zero(), stop, device=pl_module.device)
        if due or stopping:
            self.save(trainer)
        if stopping:
            self.stop.raise_if_requested()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the state after an epoch and its validation."""
        self.save(trainer)
        [stopping] = any_rank(self.stop.number is not None, device=pl_module.device)
        if stopping:
            self.stop.raise_if_requested()

    def save(self, trainer: pl.Trainer) -> None:
        """Write the checkpoint and note the time."""
        trainer.save_checkpoint(self.file)
        self.saved = time.monotonic()
