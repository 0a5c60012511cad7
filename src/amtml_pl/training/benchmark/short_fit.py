"""Short fits for measuring: a few steps by the run's own module, data and trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.optim.swa_utils import update_bn

from amtml_pl.data.packing import is_packed
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import Execution
from amtml_pl.system.console import console, quieten
from amtml_pl.training.benchmark.bare_loop import time_when_done
from amtml_pl.training.benchmark.peak_memory import parameters_beside, peak_private_memory
from amtml_pl.training.callbacks import EpochTable
from amtml_pl.training.connect import connect
from amtml_pl.training.execution import choose_execution
from amtml_pl.training.pipeline import prepare
from amtml_pl.training.plan import plan
from amtml_pl.training.plan_table import training_images
from amtml_pl.training.settings import Settings
from amtml_pl.training.stages import RunRequest
from amtml_pl.training.trainer import make_trainer, save_weights
from amtml_pl.types import Batch


class ShortFit:
    """Run whose trainer stops after a few steps; every call continues with the module.

    Args:
        settings: of the run.
        folder: its run folder.
        execution: replaces that of the plan, as a few steps are not worth compiling.
    """

    def __init__(self, settings: Settings, folder: Path, execution: Execution) -> None:
        request = RunRequest(settings, RunFolder(folder), experiment=None, command="benchmark")
        self.ready = connect(prepare(replace(plan(request), recorded=execution)))

    def steps(self) -> StepTimer:
        """Run a short fit and return the times of its steps."""
        timer = StepTimer()
        trainer = make_trainer(self.ready, EpochTable(self.ready.request.folder.metrics_file))
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.insert(0, timer)  # first, so that what the other callbacks do is part of the step
        trainer.fit(self.ready.module, datamodule=self.ready.data)
        return timer


def memory_of_short_fit(settings: Settings, folder: Path, execution: Execution) -> tuple[list[float], int]:
    """Measure a short run in this new process.

    Returns:
        Peak private memory in MB, empty except on Linux; the parameters in memory outside the trained module.
    """
    quieten()
    with silenced_console(), peak_private_memory() as peak:
        fit = ShortFit(settings, folder, execution)
        fit.steps()
        return peak, parameters_beside(fit.ready.module)


class StepTimer(Callback):
    """Callback that times each step but the first, and its inputs (fetch, augment, cache)."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.inputs: list[float] = []
        self.started = self.ended = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """End the timing of the step before."""
        now = time_when_done(pl_module.device)
        if batch_idx > 1:
            self.steps.append(now - self.started)
            self.inputs.append(now - self.ended)
        self.started = now

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """End the part of the step that is not input."""
        self.ended = time_when_done(pl_module.device)


@contextmanager
def silenced_console() -> Iterator[None]:
    """Print nothing inside, where each short run would be reported as a real one."""
    console.quiet, before = True, console.quiet
    try:
        yield
    finally:
        console.quiet = before


def execution_of_whole_run(settings: Settings) -> Execution:
    """Return the execution that a run of these settings chooses from its epochs and images."""
    return choose_execution(settings, training_images(settings, settings.dataset.source.build()) or 0)


def images_are_packed(settings: Settings) -> bool:
    """Return True if the data set can be measured; otherwise random images replace it."""
    return is_packed(settings.dataset.source.build(), settings.dataset.packed_root)


def untrained_teachers(settings: Settings) -> tuple[str, ...]:
    """Return the teachers that their recipe has not trained yet."""
    return tuple(t.name for t in settings.selected if not t.has_own_weights and t.record() is None)


def weights_for_teachers(settings: Settings, folder: Path) -> dict[str, Path]:
    """Return a weights file for each recipe's teacher; write random weights of untrained ones."""
    untrained, files = untrained_teachers(settings), {}
    for teacher in settings.selected:
        if not teacher.has_own_weights:
            files[teacher.name] = teacher.folder.weights_file
        if teacher.name in untrained:
            pl.seed_everything(settings.seed, verbose=False)
            network, size = teacher.fresh().network, teacher.image_size
            update_bn([torch.rand(64, 3, size, size)], network)  # without, deep networks' outputs overflow
            files[teacher.name] = folder / f"{teacher.name}.safetensors"
            save_weights(network, files[teacher.name])
    return files
