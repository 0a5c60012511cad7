"""From a checked configuration to the objects of a run: every node becomes what its constructor says."""

from __future__ import annotations

from collections.abc import Mapping

from omegaconf import DictConfig

from amtml_pl.config.build import build
from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import DatasetSource, PackedDataset
from amtml_pl.distill.compatibility import TeacherSource, refuse_without_teachers
from amtml_pl.distill.module import StudentModule
from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.layout import device_for, set_execution
from amtml_pl.models.taps import TappedNetwork, tap_shapes
from amtml_pl.teachers.selected import offered_features
from amtml_pl.types import Shape, TensorShapes
from amtml_pl.weighting.scheme import Weighting


def dataset_source(config: DictConfig) -> DatasetSource:
    """The source of the run's data set."""
    source: DatasetSource = build(config.dataset.source)
    return source


def data_module(config: DictConfig, packed: PackedDataset) -> PackedDataModule:
    """The run's splits, views and batches."""
    make = build(config.data, partial=True)
    module: PackedDataModule = make(packed=packed, order_seed=config.seed)
    return module


def loss_terms(config: DictConfig) -> dict[str, LossTerm]:
    """The selected terms, not yet built."""
    return {str(name): build(node) for name, node in config.loss.items()}


def training_module(
    config: DictConfig,
    terms: Mapping[str, LossTerm],
    teachers: TeacherSource | None,
    hints: Mapping[str, Shape],
) -> StudentModule:
    """The training loop with its student, terms and weighting, and their learned parameters.

    The student is built before everything else that draws random numbers, so that all methods of a study
    start from the same student for the same seed.

    Args:
        config: the checked configuration.
        terms: the selected terms, not yet built.
        teachers: the teacher source; None where no teacher is selected.
        hints: ``(C, H, W)`` of each hint by flat name.

    Raises:
        UserError: if a tap does not exist, the student has the wrong number of classes, or a part cannot take
            the labels of mixup.
    """
    if teachers is None:
        refuse_without_teachers(terms)
    weighting: Weighting = build(config.weighting)
    taps = dict.fromkeys([*(t for term in terms.values() for t in term.student_taps())])
    if teachers is not None:
        taps.update(dict.fromkeys(weighting.student_taps()))
    student = student_network(config, list(taps))
    K, features = tap_shapes(student, config.dataset.image_size)
    check_classes_of_student(config, K)
    shapes = TensorShapes(
        classes=K,
        teachers=() if teachers is None else teachers.names,
        student=features,
        hints=hints,
        offered=offered_features(config),
    )
    for term in terms.values():
        term.build(shapes)
    if teachers is not None:
        weighting.build(shapes)
    make = build(config.loop, partial=True)
    module: StudentModule = make(
        student=student,
        terms=terms,
        coef={str(name): value for name, value in config.coef.items()},
        num_classes=K,
        optimizer=build(config.optimizer),
        scheduler=build(config.scheduler),
        teachers=teachers,
        weighting=weighting,
        seed=config.seed,
    )
    if config.data.mixup:
        refuse_mixup(config, module)
    if module.automatic_optimization == module.steps_itself:
        kind = type(module).__name__
        raise UserError(
            f"{kind} sets automatic_optimization={module.automatic_optimization}, and steps_itself is "
            f"{module.steps_itself}; expected one to be the other's opposite.",
            fix=f"steps_itself = {not module.automatic_optimization}, a class attribute of {kind}",
        )
    return module


def check_classes_of_student(config: DictConfig, outputs: int) -> None:
    """Refuses a student with another number of outputs than there are classes.

    Raises:
        UserError: if they differ.
    """
    if config.dataset.num_classes != outputs:
        raise UserError(
            f"The student has {outputs} outputs; the data set {config.dataset.name!r} has "
            f"{config.dataset.num_classes} classes.",
            fix="num_classes: ${dataset.num_classes} in the student's YAML, as in conf/student/resnet20.yaml",
        )


def refuse_mixup(config: DictConfig, module: StudentModule) -> None:
    """Refuses parts that read one label per image.

    Raises:
        UserError: naming them.
    """
    blends = f"data.mixup={config.data.mixup} blends the labels of two images;"
    if blind := [
        name for name, term in zip(module.terms, module.loss_terms(), strict=True) if not term.blends_labels
    ]:
        raise UserError(
            f"{blends} the loss terms {blind} read one label per image.",
            fix="data.mixup=0, or leave them out of loss=[...]",
        )
    if module.weighting is not None and module.weighting.reads_labels:
        raise UserError(
            f"{blends} {type(module.weighting).__name__} weighs the teachers by one label per image.",
            fix="data.mixup=0, or weighting=uniform",
        )
    if not module.blends_labels:
        raise UserError(
            f"{blends} {type(module).__name__} reads one label per image.",
            fix="data.mixup=0, or loop=distill",
        )


def student_network(config: DictConfig, taps: list[str]) -> TappedNetwork:
    """The student, normalising by the data set's own statistics, laid out and compiled as asked.

    Raises:
        UserError: if a tap does not exist, or the layout is unsafe on this machine.
    """
    mean, std = list(config.dataset.mean), list(config.dataset.std)
    network = TappedNetwork(build(config.student), mean=mean, std=std, taps=taps)
    on_cpu = device_for(config.trainer.get("accelerator")).type == "cpu"
    set_execution(
        network.network, channels_last=config.channels_last, compiled=config.compile, trained_on_cpu=on_cpu
    )
    return network
