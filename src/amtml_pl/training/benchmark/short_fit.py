"""Short fits for measuring: a few steps by the run's own module, data and trainer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.optim.swa_utils import update_bn

from amtml_pl.data.packing import is_packed
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.console import console, quieten
from amtml_pl.teachers.selected import SelectedTeacher
from amtml_pl.training.benchmark.peak_memory import PeakMemory, Sampler, parameters_beside
from amtml_pl.training.connect import connect
from amtml_pl.training.pipeline import prepare
from amtml_pl.training.plan import plan
from amtml_pl.training.settings import Settings
from amtml_pl.training.stages import RunRequest
from amtml_pl.training.trainer import make_trainer, save_weights
from amtml_pl.types import Batch


class ShortFit:
    """Run whose trainer stops after a few steps; every call continues with the module."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.ready = connect(prepare(plan(RunRequest(settings, RunFolder(folder), None, "benchmark"))))

    def steps(self) -> StepTimer:
        """Run a short fit and return the times of its steps."""
        timer = StepTimer()
        request, module = self.ready.request, self.ready.module
        trainer = make_trainer(request.settings.trainer, request.folder, module)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.insert(0, timer)  # first, so that what the other callbacks do is part of the step
        trainer.fit(module, datamodule=self.ready.data)
        return timer


def peak_memory(settings: Settings, folder: Path) -> PeakMemory:
    """Return the peak memory of a short run; call it in a new process."""
    quieten()
    sampler = Sampler()
    with quiet(), sampler.running():
        fit = ShortFit(settings, folder)
        fit.steps()
        beside = parameters_beside(fit.ready.module)
    return PeakMemory(sampler.highest, beside)


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


def time_when_done(device: torch.device) -> float:
    """Return the clock's time once the accelerator has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the console, which would report each short run as a real one."""
    before = console.quiet
    console.quiet = True
    try:
        yield
    finally:
        console.quiet = before


def images_are_packed(settings: Settings) -> bool:
    """Return whether the data set can be measured; otherwise random images replace it."""
    return is_packed(settings.dataset.source.build(), settings.dataset.packed_root)


def untrained_teachers(settings: Settings) -> tuple[str, ...]:
    """Return the teachers that their recipe has not trained yet."""
    return tuple(t.name for t in settings.selected if not t.has_own_weights and t.record() is None)


def weights_for_teachers(settings: Settings, folder: Path) -> dict[str, Path]:
    """Return a weights file for each recipe's teacher; make missing ones in the folder."""
    untrained, files = untrained_teachers(settings), {}
    for teacher in settings.selected:
        if teacher.name in untrained:
            files[teacher.name] = fresh_weights(teacher, settings.seed, folder)
        elif not teacher.has_own_weights:
            files[teacher.name] = teacher.folder.weights_file
    return files


def fresh_weights(teacher: SelectedTeacher, seed: int, folder: Path) -> Path:
    """Write the weights of an untrained teacher, after batch norm on noise."""
    pl.seed_everything(seed, verbose=False)
    network, size = teacher.fresh().network, teacher.image_size
    update_bn([torch.rand(64, 3, size, size)], network)  # a deep network's outputs overflow without
    save_weights(network, file := folder / f"{teacher.name}.safetensors")
    return file
