"""Where things lie: the configuration's own files, and the folders that runs share."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

from omegaconf import DictConfig


def config_directory() -> Path:
    """The folder of YAML files: inside the installed package, or the checkout's ``conf/``."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def packed_root_of(config: DictConfig) -> Path:
    """The folder of packed data sets, shared by all runs."""
    return Path(config.paths.data) / "packed"


def cache_root(config: DictConfig) -> Path:
    """Where the outputs of all teachers for the run's data set are kept."""
    return Path(config.paths.cache) / str(config.dataset.name)


def with_absolute_paths(config: DictConfig) -> DictConfig:
    """The configuration with roots, images and teachers' weights that mean the same from any directory."""
    changed = deepcopy(config)
    for name, place in config.paths.items():
        changed.paths[name] = str(Path(place).resolve())
    if isinstance(folder := config.dataset.source.get("folder"), str):
        changed.dataset.source.folder = str(Path(folder).expanduser().resolve())
    for name, teacher in config.teacher.items():
        if teacher.weights.path is not None:
            changed.teacher[name].weights.path = str(Path(teacher.weights.path).resolve())
    return changed
