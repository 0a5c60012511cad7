"""A few steps of a run, by its own module, data and trainer, timed or weighed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.console import console, quieten
from amtml_pl.training.benchmark.peak_memory import PeakMemory, Sampler, parameters_beside
from amtml_pl.training.connect import connect
from amtml_pl.training.pipeline import prepare
from amtml_pl.training.settings import Settings
from amtml_pl.training.stages import RunRequest, plan
from amtml_pl.training.trainer import make_trainer
from amtml_pl.types import Batch


class ShortFit:
    """A run whose trainer stops after a few steps; every call goes on with the same module."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.ready = connect(prepare(plan(RunRequest(settings, RunFolder(folder), None, "benchmark"))))

    def steps(self) -> StepTimer:
        """A short fit by the trainer of a run, and what its steps took."""
        timer = StepTimer()
        request, module = self.ready.request, self.ready.module
        trainer = make_trainer(request.settings.trainer, request.folder, module)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.insert(0, timer)  # first, so that what the other callbacks do is part of the step
        trainer.fit(module, datamodule=self.ready.data)
        return timer


def peak_memory(settings: Settings, folder: Path) -> PeakMemory:
    """What a short run holds in memory; for a process of its own."""
    quieten()
    sampler = Sampler()
    with quiet(), sampler.running():
        fit = ShortFit(settings, folder)
        fit.steps()
        beside = parameters_beside(fit.ready.module)
    return PeakMemory(sampler.highest, beside)


class StepTimer(Callback):
    """Seconds of each step but the first, from one batch's start to the next, its loading included.

    Attributes:
        steps: of whole steps.
        inputs: from the end of a step to the start of the next: fetching, augmenting, reading the cache.
    """

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.inputs: list[float] = []
        self.started = self.ended = 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Ends the step before."""
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
        """Ends what is not input."""
        self.ended = time_when_done(pl_module.device)


def time_when_done(device: torch.device) -> float:
    """The clock, after an accelerator has caught up."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the console, which would tell of each short run as if it were one."""
    before = console.quiet
    console.quiet = True
    try:
        yield
    finally:
        console.quiet = before
