"""Training's view of a configuration; no module below this one reads its keys."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from amtml_pl.config.build import Part, plain_values
from amtml_pl.config.teacher_recipe import Recipe
from amtml_pl.losses.soft_targets import Mixture
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.layout import device_for
from amtml_pl.runs.identity import run_hash
from amtml_pl.teachers.cache.compute import BuildOptions
from amtml_pl.teachers.cache.serve import Place
from amtml_pl.teachers.cache.storage import Storage
from amtml_pl.training.selected_teacher import SelectedTeacher, with_hints
from amtml_pl.types import OfferedFeatures


@dataclass(frozen=True)
class DatasetOptions:
    """Options of the images: source, classes, size and normalisation."""

    name: str
    source: Part
    num_classes: int
    image_size: int
    train_images: int | None
    mean: list[float]
    std: list[float]
    packed_root: Path


@dataclass(frozen=True)
class DataOptions:
    """Options of splits and batches."""

    module: Part
    augment: Part
    batch_size: int
    views: int | Literal["all"]
    val_size: float
    train_size: int | None
    seed: int
    mixup: float


@dataclass(frozen=True)
class MethodOptions:
    """Options of the method: student, losses, weighting, loop and optimiser."""

    student: Part
    loss: Mapping[str, Part]
    coef: Mapping[str, float]
    weighting: Part
    loop: Part
    optimizer: Part
    scheduler: Part
    channels_last: bool
    compile: bool
    temperature: float
    mixture: Mixture

    def terms(self) -> dict[str, LossTerm]:
        """Return the loss terms, before their learned parameters are built."""
        return {name: node.build() for name, node in self.loss.items()}


@dataclass(frozen=True)
class CacheOptions:
    """Options of stored teacher outputs; exact ones for live teachers."""

    root: Path
    logits: Storage
    hints: Storage
    build: BuildOptions
    device: Place
    probe: int


@dataclass(frozen=True)
class TrainerOptions:
    """Options of Lightning's trainer, its loggers, and how often the state is saved."""

    trainer: Part
    loggers: tuple[Part, ...]
    epochs: int
    on_cpu: bool
    checkpoint_minutes: float | None


@dataclass(frozen=True)
class Settings:
    """Checked configuration, part by part.

    Attributes:
        offered: per teacher the modules whose outputs its YAML offers.
        cached: whether the teachers' outputs come from a cache; False without teachers.
        alone: whether the run is not one that trains a teacher.
        config: source of `study` and `text`.
    """

    seed: int
    dataset: DatasetOptions
    data: DataOptions
    method: MethodOptions
    selected: tuple[SelectedTeacher, ...]
    offered: Mapping[str, OfferedFeatures]
    cached: bool
    cache: CacheOptions
    teachers_root: Path
    trainer: TrainerOptions
    prepare: bool
    force: bool
    resume: bool
    doctor: bool
    expected_defects: tuple[str, ...]
    alone: bool
    config: DictConfig

    def teachers(self) -> tuple[SelectedTeacher, ...]:
        """Return the selected teachers, with the hints that the loss terms read."""
        return with_hints(self.selected, self.method.terms(), self.offered)

    def study(self) -> str:
        """Return the hash that the runs of all seeds share."""
        any_seed = deepcopy(self.config)
        any_seed.seed = 0
        return run_hash(any_seed)

    def text(self) -> str:
        """Return the resolved YAML with absolute paths."""
        config = deepcopy(self.config)
        for name, place in config.paths.items():
            config.paths[name] = str(Path(place).resolve())
        if isinstance(folder := config.dataset.source.get("folder"), str):
            config.dataset.source.folder = str(Path(folder).expanduser().resolve())
        for teacher in config.teacher.values():
            if teacher.weights.path is not None:
                teacher.weights.path = str(Path(teacher.weights.path).resolve())
        return OmegaConf.to_yaml(config, resolve=True)


def settings_of(config: DictConfig) -> Settings:
    """Convert a checked configuration to `Settings`."""
    dataset, data, cache, trainer = config.dataset, config.data, config.cache, config.trainer
    cached = bool(config.teacher) and config.teacher_source == "cached"
    exact = {} if cached else {"precision": "float32"}
    build = options(BuildOptions, cache, device=trainer.get("accelerator"), **exact)
    settings: Settings = options(
        Settings,
        config,
        dataset=options(
            DatasetOptions,
            dataset,
            name=str(dataset.name),
            source=part(dataset.source),
            mean=list(dataset.mean),
            std=list(dataset.std),
            packed_root=Path(config.paths.data) / "packed",
        ),
        data=options(DataOptions, data, module=part(data), augment=part(data.augment)),
        method=options(
            MethodOptions,
            config,
            student=part(config.student.network),
            loss={str(name): part(node) for name, node in config.loss.items()},
            coef={str(name): value for name, value in config.coef.items()},
            **{key: part(config[key]) for key in ("weighting", "loop", "optimizer", "scheduler")},
        ),
        selected=tuple(selected_teacher(config, str(name)) for name in config.teacher),
        offered={str(k): OfferedFeatures(n.hint, tuple(n.stages)) for k, n in config.teacher.items()},
        cached=cached,
        cache=options(
            CacheOptions,
            cache,
            root=Path(config.paths.cache) / str(dataset.name),
            build=build,
            **({} if cached else {"logits": "float32"}),
        ),
        teachers_root=Path(config.paths.teachers),
        trainer=options(
            TrainerOptions,
            trainer,
            trainer=part(trainer),
            loggers=tuple(part(logger) for logger in config.get("logger", {}).values()),
            epochs=trainer.max_epochs,
            on_cpu=device_for(trainer.get("accelerator")).type == "cpu",
            checkpoint_minutes=config.checkpoint_minutes,
        ),
        resume=config.resume != "never",
        expected_defects=tuple(config.expected_defects),
        alone=config.role == "student",
        config=config,
    )
    return settings


def options(kind: Any, node: DictConfig, **others: Any) -> Any:
    """Build a dataclass from a node's values of the same names, and from other values."""
    same = {field.name: node.get(field.name) for field in fields(kind) if field.name not in others}
    return kind(**same, **others)


def part(node: DictConfig | None) -> Part:
    """Convert a node with a ``_target_``."""
    return Part(None if node is None else plain_values(node))


def selected_teacher(config: DictConfig, name: str) -> SelectedTeacher:
    """Convert a teacher's node."""
    node = plain_values(config.teacher[name])
    return SelectedTeacher(name, Part(node["network"]), node, Recipe(config, name), config.dataset.image_size)
