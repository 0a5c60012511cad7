"""Weights for the teachers of a benchmark: those of their training, or fresh ones."""

from __future__ import annotations

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.optim.swa_utils import update_bn

from amtml_pl.data.packing import is_packed
from amtml_pl.teachers.selected import SelectedTeacher
from amtml_pl.training.settings import Settings
from amtml_pl.training.trainer import save_weights


def images_are_packed(settings: Settings) -> bool:
    """Return True if the data set can be measured; otherwise random images take its place."""
    return is_packed(settings.dataset.source.build(), settings.dataset.packed_root)


def untrained_teachers(settings: Settings) -> tuple[str, ...]:
    """Return the teachers whose recipe has not trained them yet."""
    return tuple(t.name for t in settings.selected if not t.has_own_weights and t.record() is None)


def weights_for_teachers(settings: Settings, folder: Path) -> dict[str, Path]:
    """Return a weights file for each teacher of a recipe; where there is none, it is made in the folder."""
    untrained, files = untrained_teachers(settings), {}
    for teacher in settings.selected:
        if teacher.name in untrained:
            files[teacher.name] = fresh_weights(teacher, settings.seed, folder)
        elif not teacher.has_own_weights:
            files[teacher.name] = teacher.folder.weights_file
    return files


def fresh_weights(teacher: SelectedTeacher, seed: int, folder: Path) -> Path:
    """Write the weights of an untrained teacher, whose batch norms have seen noise."""
    pl.seed_everything(seed, verbose=False)
    network, size = teacher.fresh().network, teacher.image_size
    update_bn([torch.rand(64, 3, size, size)], network)  # a deep network's outputs overflow without
    save_weights(network, file := folder / f"{teacher.name}.safetensors")
    return file
