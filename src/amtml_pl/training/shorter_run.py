"""Find a completed run that differs by fewer epochs, and explain extending it."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from amtml_pl.distill.schedules import schedule_of
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.files import read_text
from amtml_pl.training.extension import of_length
from amtml_pl.training.settings import Settings, settings_of
from amtml_pl.training.summary import override


def shorter_run(settings: Settings, folder: Path) -> tuple[Path, int] | None:
    """Return folder and epochs of the longest completed run with fewer epochs, beside a run."""
    found: dict[int, Path] = {}
    studies: dict[int, str] = {}
    for file in sorted(folder.parent.glob("*/run.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):  # a damaged record is not this run's matter
            record = json.loads(read_text(file))
            epochs = int(record["budget"]["epochs"])
            if record["status"] != "completed" or not 0 < epochs < settings.trainer.epochs:
                continue
            if epochs not in studies:
                studies[epochs] = settings_of(of_length(settings.config, epochs)).study()
            if (record["seed"], record["study"]) == (settings.seed, studies[epochs]):
                found[epochs] = file.parent
    return (found[max(found)], max(found)) if found else None


def shorter_run_note(settings: Settings, folder: RunFolder) -> str:
    """Return what a completed shorter run means for a new one; maybe empty."""
    if settings.extend is not None or (found := shorter_run(settings, folder.path)) is None:
        return ""
    other, epochs = found
    name = (settings.method.scheduler.target or "constant").rpartition(".")[2]
    ended = rate_after(settings_of(of_length(settings.config, epochs)), epochs)
    begins = rate_after(settings, epochs)
    return (
        f"A run with the same settings and {epochs} epochs is complete: {other}\n"
        f"This command trains a new run from epoch 1. To continue that run, add {override('extend', other)}\n"
        f"The schedule {name} of that run ended at learning rate {ended:.3g}. The extension continues at "
        f"{begins:.3g}, the value of a schedule of {settings.trainer.epochs} epochs after {epochs} epochs."
    )


def rate_after(settings: Settings, epochs: int) -> float:
    """Return the learning rate of a run's schedule after some epochs."""
    optimizer = settings.method.optimizer.build()([nn.Parameter(torch.zeros(()))])
    make = settings.method.scheduler.build()
    if make is not None:
        schedule, steps = schedule_of(make, optimizer, steps_per_epoch=10)
        for _ in range(epochs * steps):
            optimizer.step()
            schedule.step()
    return float(optimizer.param_groups[0]["lr"])
