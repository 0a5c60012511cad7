"""The runs that a benchmark measures: the experiment and its variants, on few images, apart from all else."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch.optim.swa_utils import update_bn

from amtml_pl.config.build import build
from amtml_pl.config.paths import config_directory, packed_root_of
from amtml_pl.data.packing import is_packed
from amtml_pl.teachers.selected import SelectedTeacher, selected_teachers
from amtml_pl.training.settings import Settings, settings_of
from amtml_pl.training.trainer import save_weights


class ShortRuns:
    """Configurations that need neither the data set nor trained teachers.

    Where the data set is not packed, random images of its shape take its place; a teacher that has not been
    trained gets fresh weights.

    Args:
        config: the checked configuration, with teachers.
        folder: an empty one for teachers, caches and runs; to be deleted afterwards.
        steps: timed in each fit, after one that is not.
        images: at least, to train on and to build the cache for.

    Attributes:
        untrained: the teachers with fresh weights.
    """

    def __init__(self, config: DictConfig, folder: Path, steps: int, images: int) -> None:
        self.folder = folder
        self.synthetic = not is_packed(build(config.dataset.source), packed_root_of(config))
        self.untrained: list[str] = []
        self.config = self.prepared(config, steps, images)

    def variant(self, name: str) -> Settings:
        """The experiment as it is, with live teachers, with plain averaging only, or from labels only."""
        own = deepcopy(self.config)
        if name == "live":
            own.teacher_source = "live"
        if name == "ce":
            own.teacher = {}
        if name in ("ce", "avg"):
            terms = ["ce"] if name == "ce" else ["ce", "kd"]
            files = [OmegaConf.load(config_directory() / "loss" / f"{term}.yaml") for term in terms]
            own.loss = OmegaConf.merge(*(file.loss for file in files))
            own.coef = OmegaConf.merge(*(file.coef for file in files), own.coef)
            own.weighting = OmegaConf.load(config_directory() / "weighting" / "uniform.yaml")
        return settings_of(own)

    def prepared(self, config: DictConfig, steps: int, images: int) -> DictConfig:
        """The same experiment on few images, with weights for every teacher, in folders of its own."""
        own: DictConfig = OmegaConf.create(without_hydra(config))
        batch = own.data.batch_size
        val_size = max(own.dataset.num_classes, 64)
        rows = max(images, (steps + 2) * batch, own.dataset.num_classes)
        if self.synthetic:
            own.paths.data = str(self.folder / "data")
            own.dataset.source = {
                "_target_": "amtml_pl.data.datasets.synthetic.Synthetic",
                "num_classes": own.dataset.num_classes,
                "image_size": own.dataset.image_size,
                "train_images": rows + val_size,
            }
        own.data.train_size = rows
        own.data.val_size = val_size
        own.trainer.max_epochs, own.trainer.limit_train_batches = 1, steps + 2
        own.logger, own.prepare, own.force = {}, True, False
        own.paths.cache, own.paths.outputs = str(self.folder / "cache"), str(self.folder / "outputs")
        own.teacher_source = "cached"
        for teacher in selected_teachers(config, {}):
            self.provide_weights(own, teacher)
        return own

    def provide_weights(self, own: DictConfig, teacher: SelectedTeacher) -> None:
        """Gives a teacher the file of its training, or of fresh weights."""
        if teacher.has_own_weights:
            return
        file = teacher.folder.weights_file
        if teacher.record() is None:
            self.untrained.append(teacher.name)
            file = self.folder / f"{teacher.name}.safetensors"
            pl.seed_everything(own.seed, verbose=False)
            network = teacher.fresh().network
            size = own.dataset.image_size
            update_bn([torch.rand(64, 3, size, size)], network)  # a deep network's outputs overflow without
            save_weights(network, file)
        own.teacher[teacher.name].weights = {
            "path": str(file),
            "key": None,
            "strip_prefixes": [],
            "rename": None,
        }


def without_hydra(config: DictConfig) -> dict[str, Any]:
    """A configuration as plain values, which another process can take."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return {str(key): value for key, value in plain.items() if key != "hydra"}
