"""Typed values of a run's configuration; no module below this one reads its keys.

A root key is declared in ``config/schema.py`` (type, range, help), has its default in ``conf/train.yaml`` or
in its group's folder of ``conf/``, and becomes a field here or in `amtml_pl.training.options`. All three have
the same order.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from omegaconf import DictConfig, OmegaConf

from amtml_pl.config.build import ObjectSpec, plain_values
from amtml_pl.config.teacher_recipe import Recipe
from amtml_pl.models.feature_map import MapReading
from amtml_pl.models.layout import device_for
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.runs.identity import study_hash
from amtml_pl.teachers.cache.compute import BuildOptions
from amtml_pl.training.head_files import HeadFiles, image_digests
from amtml_pl.training.options import (
    CacheOptions,
    DataOptions,
    DatasetOptions,
    ExecutionOptions,
    MethodOptions,
    TeacherOptions,
    TrainerOptions,
)
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.teacher_hints import with_hints
from amtml_pl.types import OfferedFeatures

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """All typed values of a checked configuration.

    Attributes:
        seed: of initial weights and batch order, in [0, 2³²).
        role: ``teacher`` for a run that trains a teacher.
        init_from, extend: run or file of the initial weights; completed run that is continued.
        cached: True if teachers' outputs come from a cache (``teacher_source``); False without teachers.
        expected_defects: findings that the doctor must report.
        resume, force: False starts an unfinished run over; True starts a completed run over.
        prepare, doctor: True makes what is missing; True examines the step before the fit.
        debug: the preset of a run that is not a result; None for a real one.
        cache, dataset, data, method, trainer: the values of these nodes.
        teachers_root: the folder of trained teachers, from ``paths.teachers``.
        selected: the teachers in order, from ``teacher``, without hints.
        offered: per teacher the modules whose outputs its YAML offers.
        config: source of `study` and `text`.
    """

    seed: int
    role: Literal["student", "teacher"]
    init_from: Path | None
    extend: Path | None
    cached: bool
    cache: CacheOptions
    expected_defects: tuple[str, ...]
    resume: bool
    prepare: bool
    force: bool
    doctor: bool
    debug: Literal["fast", "overfit", "profiler"] | None
    teachers_root: Path
    dataset: DatasetOptions
    data: DataOptions
    method: MethodOptions
    selected: tuple[SelectedTeacher, ...]
    offered: Mapping[str, OfferedFeatures]
    trainer: TrainerOptions
    config: DictConfig

    def teachers(self) -> tuple[SelectedTeacher, ...]:
        """Return the selected teachers, with the hints that the loss terms read."""
        return with_hints(self.selected, self.method.terms(), self.offered)

    def student(self, taps: Sequence[str] = ()) -> TappedNetwork:
        """Build the student, with the data set's normalisation."""
        method, dataset = self.method, self.dataset
        return TappedNetwork(
            method.student.build(),
            mean=dataset.mean,
            std=dataset.std,
            taps=taps,
            input_size=method.input_size,
            reading=method.reading,
        )

    def study(self) -> str:
        """Return the hash that the runs of all seeds share."""
        return study_hash(self.config)

    def text(self) -> str:
        """Return the resolved YAML with absolute paths."""
        config = deepcopy(self.config)
        for name, place in config.paths.items():
            config.paths[name] = str(Path(place).resolve())
        if isinstance(folder := config.dataset.source.get("folder"), str):
            config.dataset.source.folder = str(Path(folder).expanduser().resolve())
        for name in ("init_from", "extend"):
            if config[name] is not None:
                config[name] = str(Path(config[name]).resolve())
        for teacher in config.teacher.values():
            for name in ("path", "run"):
                if teacher.weights[name] is not None:
                    teacher.weights[name] = str(Path(teacher.weights[name]).resolve())
        for selected in self.selected:  # a recipe's is not in its node
            config.teacher[selected.name].class_map = selected.class_map
        return OmegaConf.to_yaml(config, resolve=True)


def settings_with_cached_teachers(settings: Settings) -> Settings:
    """Return the settings of the same run with ``teacher_source=cached``."""
    cached = deepcopy(settings.config)
    cached.teacher_source = "cached"
    return settings_of(cached)


def settings_of(config: DictConfig) -> Settings:
    """Convert a checked configuration to `Settings`."""
    dataset, data, cache, trainer = config.dataset, config.data, config.cache, config.trainer
    cached = bool(config.teacher) and config.teacher_source == "cached"
    exact, size = {} if cached else {"precision": "float32"}, dataset.image_size
    packed_root = Path(config.paths.data) / "packed"
    classes = None if data.classes is None else list(data.classes)
    split = data.val_size, data.train_size, data.seed, classes
    images = partial(
        image_digests, object_spec(dataset.source), packed_root, *split, clip_train_size=data.clip_train_size
    )
    heads = HeadFiles(Path(config.paths.teachers) / "heads", dataset.num_classes, images)
    return options(
        Settings,
        config,
        init_from=None if config.init_from is None else Path(config.init_from),
        extend=None if config.extend is None else Path(config.extend),
        cached=cached,
        cache=options(
            CacheOptions,
            cache,
            build=options(BuildOptions, cache, device=trainer.accelerator, **exact),
            root=Path(config.paths.cache) / str(dataset.name),
            **({} if cached else {"logits": "float32"}),
        ),
        expected_defects=tuple(config.expected_defects),
        resume=config.resume != "never",
        teachers_root=Path(config.paths.teachers),
        dataset=options(
            DatasetOptions,
            plain_values(dataset),
            source=object_spec(dataset.source),
            packed_root=packed_root,
        ),
        data=options(
            DataOptions, plain_values(data), module=object_spec(data), augment=object_spec(data.augment)
        ),
        method=options(
            MethodOptions,
            config,
            execution=options(ExecutionOptions, config.execution),
            student=object_spec(config.student.network),
            input_size=config.student.input_size,
            reading=MapReading.of(config.student),
            suits_channels_last=config.student.get("channels_last", True),
            loss={str(name): object_spec(node) for name, node in config.loss.items()},
            coef={str(name): value for name, value in config.coef.items()},
            **{key: object_spec(config[key]) for key in ("weighting", "loop", "optimizer", "scheduler")},
        ),
        selected=tuple(
            SelectedTeacher(
                str(k),
                object_spec(n.network),
                options(TeacherOptions, plain_values(n), reading=MapReading.of(n)),
                Recipe(config, str(k)),
                size,
                Path(config.paths.teachers),
                heads,
            )
            for k, n in config.teacher.items()
        ),
        offered={str(k): OfferedFeatures(n.hint, tuple(n.stages)) for k, n in config.teacher.items()},
        trainer=TrainerOptions(
            checkpoint_minutes=config.checkpoint_minutes,
            trainer=object_spec(trainer),
            epochs=trainer.max_epochs,
            device=training_device(trainer.accelerator),
            loggers={str(name): object_spec(node) for name, node in config.get("logger", {}).items()},
            callbacks={str(name): object_spec(node) for name, node in config.callbacks.items()},
        ),
        config=config,
    )


def training_device(accelerator: str) -> str:
    """Return the kind of device that Lightning takes for an accelerator."""
    found = device_for(accelerator).type
    return "mps" if found == "cpu" != accelerator and torch.backends.mps.is_available() else found


def options(kind: Callable[..., T], node: DictConfig | Mapping[str, Any], **others: Any) -> T:
    """Build a dataclass from a node's values of the same names, and from other values."""
    same = {name: node[name] for name in inspect.signature(kind).parameters if name not in others}
    return kind(**same, **others)


def object_spec(node: DictConfig | None) -> ObjectSpec:
    """Convert a node with a ``_target_``."""
    return ObjectSpec(None if node is None else plain_values(node))
