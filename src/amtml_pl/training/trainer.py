"""Lightning's trainer and its surroundings: interrupts, evaluation, saved weights."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, Checkpoint
from pytorch_lightning.loggers import Logger
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.trainer.states import TrainerStatus
from safetensors.torch import save

from amtml_pl.distill.non_finite import NonFiniteGuard
from amtml_pl.errors import UserError, first_line
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system import ranks
from amtml_pl.system.checkpoint_file import read_checkpoint
from amtml_pl.system.collectives import STEP_TIMEOUT, cluster_environment
from amtml_pl.system.console import console, is_watched
from amtml_pl.system.files import write_bytes
from amtml_pl.system.limits import named_file
from amtml_pl.system.signals import StopRequest, restoring_handlers
from amtml_pl.training.callbacks import Accounts, BestCheckpoint, EpochLines, EpochTable
from amtml_pl.training.checkpoints import AtomicCheckpointIO, LastCheckpoint
from amtml_pl.training.loggers.guard import guard_callback
from amtml_pl.training.progress import FitProgress
from amtml_pl.training.settings import Settings
from amtml_pl.training.stages import Ready


def make_trainer(
    ready: Ready,
    table: EpochTable,
    stop: StopRequest | None = None,
    loggers: Sequence[Logger] = (),
    observers: Sequence[Checkpoint] = (),
) -> pl.Trainer:
    """Return Lightning's trainer with this project's checkpoints and a table of epochs."""
    options, folder, module = ready.request.settings.trainer, ready.request.folder, ready.module
    minutes, best = options.checkpoint_minutes, folder.best_checkpoint
    callbacks = [
        NonFiniteGuard(),
        Accounts(module.spent),
        BestCheckpoint(
            best.parent,
            best.stem,
            monitor="val/acc" if ready.data.has_validation else None,  # None keeps the last epoch
            mode="max",
            enable_version_counter=False,
            save_weights_only=True,
        ),
        *run_callbacks(ready.request.settings),
        # Before last.ckpt: a fit that is killed in between repeats the epoch's end and writes its row again.
        table,
        *observers,
        LastCheckpoint(folder.last_checkpoint, ready.data, None if minutes is None else 60 * minutes, stop),
        FitProgress() if is_watched(console) else EpochLines(),
    ]
    # Only existing processes: for more, Lightning would start this command again for each.
    each = ranks.local_world_size()
    fitting: dict[str, Any] = {"devices": each, "num_nodes": ranks.world_size() // each}
    if ranks.world_size() > 1:
        manual = not module.automatic_optimization  # such a loop may leave parameters unused
        fitting["strategy"] = DDPStrategy(find_unused_parameters=manual, timeout=STEP_TIMEOUT)
    if not ready.data.has_validation:
        fitting["limit_val_batches"] = 0
    # Else deterministic mode fills all new memory with NaN, which takes a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    trainer: pl.Trainer = options.trainer.maker()(
        logger=list(loggers),
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), cluster_environment()],
        default_root_dir=folder.path,
        enable_progress_bar=False,  # replaced by `FitProgress`
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module's sampler knows ranks and epochs itself
        reload_dataloaders_every_n_epochs=1,
        **fitting,
    )
    if isinstance(options.trainer.plain().get("profiler"), str):
        profiler: Any = vars(trainer)["profiler"]
        profiler.dirpath, profiler.filename = folder.path, "profile"
    return trainer


def run_callbacks(settings: Settings) -> list[Callback]:
    """Return the guarded callbacks of the configuration."""
    callbacks: list[Callback] = []
    for name, part in settings.trainer.callbacks.items():
        callback = part.build()
        guard_callback(callback, name)
        callbacks.append(callback)
    return callbacks


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C inside, where Lightning would exit with status 1."""
    with restoring_handlers(signal.SIGINT):
        try:
            yield
        except SystemExit:
            if trainer.state.status == TrainerStatus.INTERRUPTED:
                raise KeyboardInterrupt from None
            raise


@contextmanager
def machine_errors_explained(folder: RunFolder) -> Iterator[None]:
    """Turn out-of-memory errors and every OSError into a UserError that explains resuming."""
    resumable = "The last checkpoint is intact, and the same command resumes from it"
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        # The CPU's allocator reports by a plain RuntimeError.
        if type(error) is RuntimeError and "can't allocate memory" not in str(error):
            raise
        raise UserError(
            f"The run is out of memory: {first_line(error).rstrip('.')}. {resumable}.",
            fix="repeat the command with cache.placement=mapped to leave teacher outputs on disk, or train "
            "a new run with a smaller data.batch_size",
        ) from error
    except OSError as error:
        where = named_file(error) or folder.path
        raise UserError(
            f"The path {where} cannot be read or written: {error.strerror or error}. {resumable}.",
            fix="check the disk and its mount, then repeat the command",
        ) from error


def validate_and_test(trainer: pl.Trainer, ready: Ready, checkpoint: Path) -> dict[str, float]:
    """Load a checkpoint; return its accuracy and loss on validation and test."""
    found: dict[str, float] = {}
    read_checkpoint(checkpoint, ready.module.state_dict())
    for run in (*([trainer.validate] if ready.data.has_validation else []), trainer.test):
        for metrics in run(
            ready.module, datamodule=ready.data, ckpt_path=checkpoint, weights_only=True, verbose=False
        ):
            found.update({name: float(value) for name, value in metrics.items()})
    return found


def save_weights(student: TappedNetwork, file: Path) -> None:
    """Write the student's bare network, atomically."""
    state = student.network.state_dict()
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    write_bytes(file, save(tensors))  # save_file would make it readable only for its owner
