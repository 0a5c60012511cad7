"""Training's view of a configuration; no module below this one reads its keys."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from amtml_pl.config.build import Part
from amtml_pl.config.teacher_recipe import Recipe
from amtml_pl.losses.soft_targets import Mixture
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.layout import device_for
from amtml_pl.runs.identity import run_hash
from amtml_pl.teachers.cache.compute import BuildOptions
from amtml_pl.teachers.cache.serve import Place
from amtml_pl.teachers.cache.storage import Storage
from amtml_pl.teachers.selected import SelectedTeacher, with_hints
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
    """Options of the cache of teachers' outputs; ``normalisation`` is the data set's."""

    root: Path
    logits: Storage
    hints: Storage
    build: BuildOptions
    device: Place
    probe: int
    epochs: int
    normalisation: tuple[list[float], list[float]]


@dataclass(frozen=True)
class TrainerOptions:
    """Options of Lightning's trainer, its loggers, and how often the state is saved."""

    trainer: Part
    loggers: tuple[Part, ...]
    epochs: int
    on_cpu: bool
    precision: str
    gradient_clip_val: float | None
    accumulate_grad_batches: int
    checkpoint_minutes: float | None


@dataclass(frozen=True)
class Settings:
    """Checked configuration, part by part.

    Attributes:
        offered: per teacher the modules whose outputs its YAML offers.
        cached: whether the teachers' outputs come from a cache; False without teachers.
        alone: whether the run is not one that trains a teacher.
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

    def teachers(self, terms: Mapping[str, LossTerm]) -> tuple[SelectedTeacher, ...]:
        """Return the selected teachers, with the hints that the loss terms read."""
        return with_hints(self.selected, terms, self.offered)

    def study(self) -> str:
        """Return the hash that the runs of all seeds share."""
        any_seed = deepcopy(self.config)
        any_seed.seed = 0
        return run_hash(any_seed)

    def text(self) -> str:
        """Return the resolved YAML, which means the same from any directory."""
        return OmegaConf.to_yaml(with_absolute_paths(self.config), resolve=True)


def settings_of(config: DictConfig) -> Settings:
    """Convert a checked configuration to `Settings`."""
    return Settings(
        seed=config.seed,
        dataset=dataset_options(config),
        data=data_options(config),
        method=method_options(config),
        selected=tuple(selected_teacher(config, str(name)) for name in config.teacher),
        offered={
            str(name): OfferedFeatures(node.hint, tuple(node.stages)) for name, node in config.teacher.items()
        },
        cached=bool(config.teacher) and config.teacher_source == "cached",
        cache=cache_options(config),
        teachers_root=Path(config.paths.teachers),
        trainer=trainer_options(config),
        prepare=config.prepare,
        force=config.force,
        resume=config.resume != "never",
        doctor=config.doctor,
        expected_defects=tuple(config.expected_defects),
        alone=config.role == "student",
        config=config,
    )


def selected_teacher(config: DictConfig, name: str) -> SelectedTeacher:
    """Convert a teacher's node."""
    node: Any = OmegaConf.to_container(config.teacher[name], resolve=True)
    network = Part(config.teacher[name].network)
    return SelectedTeacher(name, network, node, Recipe(config, name), config.dataset.image_size)


def dataset_options(config: DictConfig) -> DatasetOptions:
    """Convert the data set's node."""
    node = config.dataset
    return DatasetOptions(
        name=str(node.name),
        source=Part(node.source),
        num_classes=node.num_classes,
        image_size=node.image_size,
        train_images=node.get("train_images"),
        mean=list(node.mean),
        std=list(node.std),
        packed_root=Path(config.paths.data) / "packed",
    )


def data_options(config: DictConfig) -> DataOptions:
    """Convert the node of splits and batches."""
    node = config.data
    sizes = {key: node[key] for key in ("batch_size", "views", "val_size", "train_size", "seed", "mixup")}
    return DataOptions(module=Part(node), augment=Part(node.augment), **sizes)


def method_options(config: DictConfig) -> MethodOptions:
    """Collect the nodes that make the method."""
    return MethodOptions(
        student=Part(config.student.network),
        loss={str(name): Part(node) for name, node in config.loss.items()},
        coef={str(name): value for name, value in config.coef.items()},
        weighting=Part(config.weighting),
        loop=Part(config.loop),
        optimizer=Part(config.optimizer),
        scheduler=Part(config.scheduler),
        **{key: config[key] for key in ("channels_last", "compile", "temperature", "mixture")},
    )


def cache_options(config: DictConfig) -> CacheOptions:
    """Convert the cache's node."""
    node = config.cache
    own = {key: node[key] for key in ("batch_size", "precision", "channels_last", "compile")}
    build_options = BuildOptions(
        **own, device="cpu" if config.trainer.get("accelerator") == "cpu" else "auto"
    )
    return CacheOptions(
        root=Path(config.paths.cache) / str(config.dataset.name),
        logits=node.logits,
        hints=node.hints,
        build=build_options,
        device=node.device,
        probe=node.probe,
        epochs=config.trainer.max_epochs,
        normalisation=(list(config.dataset.mean), list(config.dataset.std)),
    )


def trainer_options(config: DictConfig) -> TrainerOptions:
    """Convert the nodes of trainer and loggers."""
    node = config.trainer
    return TrainerOptions(
        trainer=Part(node),
        loggers=tuple(Part(logger) for logger in config.get("logger", {}).values()),
        epochs=node.max_epochs,
        on_cpu=device_for(node.get("accelerator")).type == "cpu",
        precision=str(node.get("precision", "32-true")),
        gradient_clip_val=node.get("gradient_clip_val"),
        accumulate_grad_batches=node.get("accumulate_grad_batches", 1),
        checkpoint_minutes=config.checkpoint_minutes,
    )


def with_absolute_paths(config: DictConfig) -> DictConfig:
    """Return a configuration whose paths are absolute."""
    changed = deepcopy(config)
    for name, place in config.paths.items():
        changed.paths[name] = str(Path(place).resolve())
    if isinstance(folder := config.dataset.source.get("folder"), str):
        changed.dataset.source.folder = str(Path(folder).expanduser().resolve())
    for name, teacher in config.teacher.items():
        if teacher.weights.path is not None:
            changed.teacher[name].weights.path = str(Path(teacher.weights.path).resolve())
    return changed
