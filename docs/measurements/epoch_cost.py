"""Measure what a run does between the last step of an epoch and the first step of the next.

    OMP_NUM_THREADS=1 python docs/measurements/epoch_cost.py [OVERRIDE ...]

The second of two runs is measured, whose teacher outputs are cached. Prints milliseconds per epoch, of that
validation, and everything else, such as checkpoints, table and dashboard.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra import compose, initialize_config_dir
from pytorch_lightning.callbacks import Callback

from amtml_pl.config.checks import check
from amtml_pl.config.paths import config_directory
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.console import quieten
from amtml_pl.training import fit
from amtml_pl.training.benchmark.short_fit import silenced_console
from amtml_pl.training.pipeline import execute
from amtml_pl.training.settings import settings_of
from amtml_pl.training.stages import RunRequest

WORDS = ("experiment=digits", "method=amtml_adapter", "trainer=cpu", "trainer.max_epochs=20", "doctor=false")


class EpochClock(Callback):
    """Callback that notes when steps and validations begin and end."""

    def on_fit_start(self, *_: Any) -> None:
        """Forget the fits before."""
        self.epochs: list[float] = []
        self.between: list[float] = []
        self.validations: list[float] = []
        self.first = self.last = self.validation = 0.0

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """End the pause between two epochs, at an epoch's first step."""
        now = time.perf_counter()
        if batch_idx == 0:
            if self.first:
                self.epochs.append(now - self.first)
                self.between.append(now - self.last)
            self.first = now

    def on_train_batch_end(self, *_: Any) -> None:
        """Begin the pause, if the step is the epoch's last."""
        self.last = time.perf_counter()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Begin a batch of a validation."""
        self.validation = time.perf_counter()

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """End a batch of a validation."""
        spent = time.perf_counter() - self.validation
        while len(self.validations) <= trainer.current_epoch:
            self.validations.append(0.0)
        self.validations[trainer.current_epoch] += spent


def main() -> None:
    """Train, and print medians over the epochs but the first."""
    quieten()
    clock, make_trainer = EpochClock(), fit.make_trainer

    def timed(*arguments: Any) -> pl.Trainer:
        trainer = make_trainer(*arguments)
        trainer.callbacks.append(clock)  # type: ignore[attr-defined]
        return trainer

    fit.make_trainer = timed
    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(config_directory()), version_base="1.3"),
        silenced_console(),
    ):
        places = [f"paths.{name}={folder}/{name}" for name in ("outputs", "cache", "teachers")]
        config = compose("train", overrides=[*WORDS, *places, *sys.argv[1:]])
        check(config)
        settings = settings_of(config)
        for run in ("fills the cache", "reads it"):
            execute(RunRequest(settings, RunFolder(Path(folder) / run), None, command="measurement"))
    epoch, between, validation = (
        1e3 * statistics.median(values[1:]) for values in (clock.epochs, clock.between, clock.validations)
    )
    sys.stdout.write(
        f"epoch {epoch:.0f} ms, validation {validation:.1f} ms, other work between epochs "
        f"{between - validation:.1f} ms ({(between - validation) / epoch:.1%} of the epoch)\n"
    )


if __name__ == "__main__":
    main()
