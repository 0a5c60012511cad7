"""Lightning's trainer and its surroundings: interrupts, evaluation, saved weights."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerStatus
from safetensors.torch import save

from amtml_pl.data.module import PackedDataModule
from amtml_pl.distill.module import StudentModule
from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.runs.epoch_table import read_epochs
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system import ranks
from amtml_pl.system.checkpoint_file import read_checkpoint
from amtml_pl.system.collectives import STEP_TIMEOUT, cluster_environment
from amtml_pl.system.files import write_bytes
from amtml_pl.system.limits import named_file
from amtml_pl.system.signals import StopRequest
from amtml_pl.training.callbacks import run_callbacks
from amtml_pl.training.checkpoints import AtomicCheckpointIO
from amtml_pl.training.settings import TrainerOptions


def make_trainer(
    options: TrainerOptions,
    folder: RunFolder,
    module: StudentModule,
    stop: StopRequest | None = None,
    loggers: Sequence[Logger] = (),
    observers: Sequence[Checkpoint] = (),
) -> pl.Trainer:
    """Return Lightning's trainer with this project's checkpoints and table of epochs."""
    make, minutes = options.trainer.maker(), options.checkpoint_minutes
    # Only existing processes: for more, Lightning would start this command again for each.
    each = ranks.local_world_size()
    processes: dict[str, Any] = {"devices": each, "num_nodes": ranks.world_size() // each}
    if ranks.world_size() > 1:
        processes["strategy"] = shared_training(module)
    every_seconds = None if minutes is None else 60 * minutes
    trainer: pl.Trainer = make(
        logger=list(loggers),
        callbacks=run_callbacks(folder, module.spent, every_seconds, stop, observers),
        plugins=[AtomicCheckpointIO(), cluster_environment()],
        default_root_dir=folder.path,
        enable_progress_bar=False,  # `run_callbacks` brings its own
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module's sampler knows ranks and epochs itself
        reload_dataloaders_every_n_epochs=1,
        **processes,
    )
    return trainer


def shared_training(module: StudentModule) -> DDPStrategy:
    """Return the DDP strategy; loops with manual optimisation may leave parameters unused."""
    return DDPStrategy(find_unused_parameters=not module.automatic_optimization, timeout=STEP_TIMEOUT)


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C inside, where Lightning would exit with status 1."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, handler)


@contextmanager
def explained(folder: RunFolder) -> Iterator[None]:
    """Turn a full memory and every OSError into a UserError that explains resuming."""
    resumable = "The last checkpoint is whole, and the same command goes on from it"
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # The CPU's allocator reports by a plain RuntimeError.
        if type(error) is RuntimeError and "can't allocate memory" not in str(error):
            raise
        reason = str(error).partition("\n")[0] or "no more can be had"
        raise UserError(
            f"Out of memory: {reason}. {resumable}.",
            fix="free memory and repeat; smaller: cache.device=mapped (teachers' outputs stay on the disk), "
            "trainer.precision=bf16-mixed, more trainer.devices, or as another run a smaller data.batch_size",
        ) from error
    except OSError as error:
        where = named_file(error) or folder.path
        raise UserError(
            f"{where} cannot be read or written: {error.strerror or error}. {resumable}.",
            fix="check the disk or the mount, and repeat the command",
        ) from error


def evaluate(
    trainer: pl.Trainer, module: pl.LightningModule, data: PackedDataModule, checkpoint: Path
) -> dict[str, float]:
    """Load a checkpoint into the module; return its accuracy and loss on validation and test."""
    found: dict[str, float] = {}
    read_checkpoint(checkpoint, module.state_dict())
    for run in (trainer.validate, trainer.test):
        for metrics in run(module, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False):
            found.update({name: float(value) for name, value in metrics.items()})
    return found


def save_weights(student: TappedNetwork, file: Path) -> None:
    """Write the student's bare network, atomically."""
    state = student.network.state_dict()
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    write_bytes(file, save(tensors))  # save_file would make it readable for its owner alone


def weights_of_last_epoch(table: Path) -> dict[str, float]:
    """Return the last epoch's ``weight/<teacher>``, ``weight_entropy`` and similar metrics.

    Raises:
        UserError: if the table of epochs is damaged.
    """
    try:
        last = read_epochs(table)[-1]
        return {name: float(value) for name, value in last.items() if name.startswith("weight") and value}
    except ValueError as error:
        raise UserError(
            f"{table} is damaged: {error}.",
            fix="the same command again: it writes the table anew from the last checkpoint",
        ) from error
