"""Typed values of the nodes of a run's configuration, one class per node.

A root key is declared in ``config/schema.py`` (type, range, help), has its default in ``conf/train.yaml`` or
in its group's folder of ``conf/``, and becomes a field here or in `amtml_pl.training.settings.Settings`. All
three have the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from amtml_pl.config.build import ObjectSpec
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.classifier_head import ClassMap
from amtml_pl.models.feature_map import MapReading
from amtml_pl.teachers.cache.compute import BuildOptions
from amtml_pl.teachers.cache.serve import Placement
from amtml_pl.teachers.cache.storage import Storage
from amtml_pl.types import Mixture


@dataclass(frozen=True)
class DatasetOptions:
    """Options of the images, from ``dataset``.

    Attributes:
        name, source: in folders and tables; the `DatasetSource` that reads the images.
        num_classes, image_size: K, 2 or more; H = W in pixels, 1 or more.
        train_images: number of training images before packing, 1 or more; None if unknown.
        mean, std: per channel (3), of pixels in [0, 1]; ``std`` is above 0.
        packed_root: the folder of packed data sets, below ``paths.data``.
    """

    name: str
    source: ObjectSpec
    num_classes: int
    image_size: int
    train_images: int | None
    mean: list[float]
    std: list[float]
    packed_root: Path


@dataclass(frozen=True)
class DataOptions:
    """Options of splits and batches, from ``data``.

    Attributes:
        module, augment: the `PackedDataModule`, and the operations of a view, an argument of it.
        balanced: True if an epoch draws all classes equally often.
        batch_size: images over all ranks, 1 or more.
        classes: those whose images every split keeps; None for all.
        mixup: α of the mixing distribution, 0 or more; 0 blends nothing.
        seed: of splits and views, in [0, 2³²).
        train_size: training images, 1 or more; None takes all that validation leaves.
        val_size: number of validation images, or a float as a fraction of the training split.
        views: V, the augmented versions of each image, 1 or more, or all.
    """

    module: ObjectSpec
    augment: ObjectSpec
    balanced: bool
    batch_size: int
    classes: list[int] | None
    mixup: float
    seed: int
    train_size: int | None
    val_size: int | float
    views: int | Literal["all"]


@dataclass(frozen=True)
class ExecutionOptions:
    """Wanted execution of the student's step, from ``execution``; see `amtml_pl.training.execution`.

    Attributes:
        channels_last, compile, fused: memory layout; compilation of the step; one kernel for the optimiser.
    """

    channels_last: bool | Literal["auto"]
    compile: bool | Literal["auto"]
    fused: bool | Literal["auto"]


@dataclass(frozen=True)
class MethodOptions:
    """Options of the method, from root keys of the same names.

    Attributes:
        execution: how the student's step is computed.
        temperature, mixture: T of softened outputs, above 0; what the soft targets average.
        student: the network to train, from ``student.network``.
        input_size: height and width that the student's images are resized to; None keeps them.
        reading: how the student's tokens and maps with channels last become maps, from ``student``.
        suits_channels_last: False if that layout is slower on a CPU, from ``student.channels_last``.
        weighting, loop: the scheme that weighs the teachers; the training step, a `StudentModule`.
        loss, coef: terms, and their finite multipliers, also of unselected terms, by name.
        optimizer, scheduler: of its parameter groups; of the learning rate, once per epoch.
    """

    execution: ExecutionOptions
    temperature: float
    mixture: Mixture
    student: ObjectSpec
    input_size: int | None
    reading: MapReading
    suits_channels_last: bool
    weighting: ObjectSpec
    loss: Mapping[str, ObjectSpec]
    coef: Mapping[str, float]
    loop: ObjectSpec
    optimizer: ObjectSpec
    scheduler: ObjectSpec

    def terms(self) -> dict[str, LossTerm]:
        """Return the loss terms, before their learned parameters are built."""
        return {name: node.build() for name, node in self.loss.items()}


@dataclass(frozen=True)
class CacheOptions:
    """Options of stored teacher outputs, from ``cache``; exact ones for live teachers.

    Attributes:
        logits, hints: how they are stored; logits of live teachers are float32.
        build: how teachers run; its ``device`` is ``trainer.accelerator``.
        placement: where a fit reads the outputs: mapped from disk, or resident on the device.
        probe: random (sample, view) pairs compared at each start, 0 or more.
        root: the data set's folder below ``paths.cache``.
    """

    logits: Storage
    hints: Storage
    build: BuildOptions
    placement: Placement
    probe: int
    root: Path


@dataclass(frozen=True)
class TrainerOptions:
    """Options of Lightning's trainer, its loggers, and how often the state is saved.

    Attributes:
        checkpoint_minutes: between checkpoints, 0 or more; None saves at the end of epochs only.
        trainer: Lightning's trainer, from ``trainer``.
        loggers, callbacks: by name, from ``logger`` and ``callbacks``.
        epochs: 1 or more, from ``trainer.max_epochs``.
        device: kind of the device that trains the student, such as ``cpu``, from ``trainer.accelerator``.
    """

    checkpoint_minutes: float | None
    trainer: ObjectSpec
    epochs: int
    device: str
    loggers: Mapping[str, ObjectSpec]
    callbacks: Mapping[str, ObjectSpec]


@dataclass(frozen=True)
class TeacherOptions:
    """Values of ``teacher.NAME`` besides its network and taps.

    Attributes:
        pretrained: True if the constructor loads the weights.
        weights: ``path``, ``url`` or ``run``, all None without a file; the other keys of ``weights``.
        mean, std: three numbers each, by which it normalises images in [0, 1].
        input_size: height and width that it resizes images to; None keeps them.
        head: None if the network returns logits; ``none``: hints alone; ``linear``: a fitted classifier.
        hint: the module whose map a fitted classifier reads; None for the network's output.
        class_map: K positions in its own outputs, by class of the data, None for a class that it does not
            know; None keeps the order.
        pool: side of the grid to which larger hints are pooled; None keeps them.
        reading: how its tokens and maps with channels last become hints.
        recipe: experiment that trains it; None if its weights are given.
        min_accuracy: least accuracy on the validation split, in [0, 1]; None for no limit.
    """

    pretrained: bool
    weights: Mapping[str, Any]
    mean: Sequence[float]
    std: Sequence[float]
    input_size: int | None
    head: Literal["none", "linear"] | None
    hint: str | None
    class_map: ClassMap
    pool: int | None
    reading: MapReading
    recipe: str | None
    min_accuracy: float | None
