"""From a checked configuration to the objects of a run: every node becomes what its constructor says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from amtml_pl.data import PackedDataModule
from amtml_pl.distill import DistillModule, refuse_without_teachers
from amtml_pl.errors import UserError
from amtml_pl.features import TappedNetwork, tap_shapes
from amtml_pl.losses.term import LossTerm
from amtml_pl.packing import DatasetSource, PackedDataset
from amtml_pl.teachers import LiveTeachers, Teacher
from amtml_pl.types import TensorShapes
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


def teacher_networks(config: DictConfig, terms: Mapping[str, LossTerm]) -> dict[str, TappedNetwork]:
    """The selected teachers with fresh weights, tapped where the terms want a hint.

    Raises:
        UserError: if a term wants a hint of a teacher that is not selected, or a tap does not exist.
    """
    offered = offered_hints(config)
    wanted: dict[str, list[str]] = {str(name): [] for name in config.teacher}
    for name in dict.fromkeys(hint for term in terms.values() for hint in term.hints(offered)):
        teacher, _, tap = name.partition("/")
        if teacher not in wanted:
            raise UserError(
                f"The hint {name!r} is of a teacher that is not selected; selected are {list(wanted)}.",
                fix="name one of them, or add it to teacher=[...]",
            )
        wanted[teacher].append(tap)
    networks = {}
    for name, taps in wanted.items():
        node = config.teacher[name]
        mean, std = list(node.mean), list(node.std)
        networks[name] = TappedNetwork(build(node.network), mean=mean, std=std, taps=taps)
    return networks


def offered_hints(config: DictConfig) -> dict[str, str]:
    """Per teacher, in order, the module whose output its YAML offers as hint."""
    return {str(name): str(node.hint) for name, node in config.teacher.items() if node.hint}


def frozen_teachers(config: DictConfig, networks: Mapping[str, TappedNetwork]) -> LiveTeachers | None:
    """The teacher source of a live run; None where no teacher is selected."""
    if not networks:
        return None
    teachers = []
    for name, network in networks.items():
        class_map = config.teacher[name].class_map
        teachers.append(Teacher(name, network, class_map=None if class_map is None else list(class_map)))
    source = LiveTeachers(teachers)
    source.check_classes(config.dataset.num_classes, config.dataset.image_size)
    return source


def distill_module(
    config: DictConfig, terms: Mapping[str, LossTerm], teachers: LiveTeachers | None
) -> DistillModule:
    """The student, the terms and the weighting, with their learned parameters.

    The student is built before everything else that draws random numbers, so that all methods of a study
    start from the same student for the same seed.

    Raises:
        UserError: if a tap does not exist, or the student has the wrong number of classes.
    """
    if teachers is None:
        refuse_without_teachers(terms)
    weighting: Weighting = build(config.weighting)
    taps = dict.fromkeys([*(t for term in terms.values() for t in term.student_taps())])
    if teachers is not None:
        taps.update(dict.fromkeys(weighting.student_taps()))
    student = student_network(config, list(taps))
    K, features = tap_shapes(student, config.dataset.image_size)
    if config.dataset.num_classes != K:
        raise UserError(
            f"The student has {K} outputs; the data set {config.dataset.name!r} has "
            f"{config.dataset.num_classes} classes.",
            fix="num_classes: ${dataset.num_classes} in the student's YAML, as in conf/student/resnet20.yaml",
        )
    shapes = TensorShapes(
        classes=K,
        teachers=() if teachers is None else teachers.names,
        student=features,
        hints={} if teachers is None else teachers.shapes(config.dataset.image_size),
        offered=offered_hints(config),
    )
    for term in terms.values():
        term.build(shapes)
    if teachers is not None:
        weighting.build(shapes)
    return DistillModule(
        student=student,
        terms=terms,
        coef={str(name): value for name, value in config.coef.items()},
        num_classes=K,
        optimizer=build(config.optimizer),
        scheduler=build(config.scheduler),
        teachers=teachers,
        weighting=weighting,
        weighting_lr=config.weighting_lr,
        seed=config.seed,
    )


def student_network(config: DictConfig, taps: list[str]) -> TappedNetwork:
    """The student, normalising by the data set's own statistics."""
    mean, std = list(config.dataset.mean), list(config.dataset.std)
    return TappedNetwork(build(config.student), mean=mean, std=std, taps=taps)


def build(node: DictConfig | None, *, partial: bool = False) -> Any:  # noqa: ANN401
    """The object that a node describes, from plain values; None for no node.

    Args:
        node: ``_target_`` and its arguments.
        partial: whether to leave the call to the caller, who adds arguments.

    Raises:
        UserError: if its constructor refuses the values.
    """
    if node is None:
        return None
    try:
        return instantiate(node, _convert_="all", **({"_partial_": True} if partial else {}))
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{node.get('_target_')} cannot be built: {error.__cause__ or error}") from error
