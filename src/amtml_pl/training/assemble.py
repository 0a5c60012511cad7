"""Construction of a run's objects from its settings."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl

from amtml_pl.data.module import PackedDataModule, TeacherReader
from amtml_pl.data.packing import PackedDataset
from amtml_pl.distill.compatibility import TeacherSource, refuse_without_teachers
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm
from amtml_pl.models.layout import set_layout
from amtml_pl.models.taps import TappedNetwork, tap_shapes
from amtml_pl.runs.record import Execution
from amtml_pl.training.execution import fused_optimizer
from amtml_pl.training.initial_weights import load_initial_weights
from amtml_pl.training.settings import Settings
from amtml_pl.types import Shape, TensorShapes
from amtml_pl.weighting.scheme import Weighting


def data_module(
    settings: Settings, packed: PackedDataset, teachers: TeacherReader | None = None
) -> PackedDataModule:
    """Return the run's data module: splits, views and batches."""
    make = settings.data.module.maker()
    module: PackedDataModule = make(packed=packed, order_seed=settings.seed, teachers=teachers)
    return module


def training_module(
    settings: Settings, teachers: TeacherSource | None, hints: Mapping[str, Shape], execution: Execution
) -> StudentModule:
    """Build the training loop with student, terms, weighting and their learned parameters.

    The student is the first to draw random numbers. So all methods of a study start from the same student
    for the same seed.

    Raises:
        UserError: if a tap does not exist, the number of classes is wrong, or a part does not fit mixup.
    """
    method, terms = settings.method, settings.method.terms()
    if teachers is None:
        refuse_without_teachers(terms)
    pl.seed_everything(settings.seed, verbose=False)
    weighting: Weighting = method.weighting.build()
    parts: list[LossTerm | Weighting] = [*terms.values(), *([] if teachers is None else [weighting])]
    taps = list(dict.fromkeys(tap for part in parts for tap in part.student_taps()))
    student = student_network(settings, taps, execution)
    K, features = tap_shapes(student, settings.dataset.image_size)
    check_classes_of_student(settings, K)
    if settings.init_from is not None:
        load_initial_weights(student.network, settings.init_from, K)
    shapes = TensorShapes(
        classes=K,
        teachers=() if teachers is None else teachers.names,
        student=features,
        hints=hints,
        offered=settings.offered,
    )
    for part in parts:
        part.build(shapes)
    module: StudentModule = method.loop.maker()(
        student=student,
        terms=terms,
        coef=method.coef,
        num_classes=K,
        optimizer=fused_optimizer(method.optimizer.build(), fused=execution.fused),
        scheduler=method.scheduler.build(),
        teachers=teachers,
        weighting=weighting,
        seed=settings.seed,
    )
    maps = [selected.class_map for selected in settings.selected]
    module.has_specialists = any(found is not None and None in found for found in maps)
    if execution.compile and isinstance(module, DistillModule):
        module.compile_full_batches(settings.data.batch_size, required=method.execution.compile is True)
    if settings.data.mixup:
        refuse_mixup(settings.data.mixup, module)
    check_optimization(module)
    return module


def check_optimization(module: StudentModule) -> None:
    """Raise a UserError unless ``steps_itself`` is the opposite of ``automatic_optimization``."""
    if module.automatic_optimization == module.steps_itself:
        kind = type(module).__name__
        raise UserError(
            f"The training loop {kind} sets steps_itself and automatic_optimization to the same value "
            f"(got {module.steps_itself}, expected opposite values).",
            fix=f"set steps_itself = {not module.automatic_optimization} in the class {kind}",
        )


def check_classes_of_student(settings: Settings, outputs: int) -> None:
    """Raise a UserError unless the student has one output per class."""
    dataset = settings.dataset
    if dataset.num_classes != outputs:
        raise UserError(
            f"The number of student outputs is not the number of classes in {dataset.name!r} (got {outputs}, "
            f"expected {dataset.num_classes}).",
            fix="write num_classes: ${dataset.num_classes} in the student's YAML (example: "
            "conf/student/resnet20.yaml)",
        )


def refuse_mixup(mixup: float, module: StudentModule) -> None:
    """Raise a UserError for parts that read one label per image."""
    unfit = [name for name, term in module.loss_terms().items() if not term.blends_labels]
    if unfit:
        reader, fix = f"The loss terms {unfit} read", "select a loss without these terms: 'loss=[TERM,TERM]'"
    elif module.weighting is not None and module.weighting.reads_labels:
        reader, fix = f"The weighting {type(module.weighting).__name__} reads", "set weighting=uniform"
    elif not module.blends_labels:
        reader, fix = f"The training loop {type(module).__name__} reads", "set loop=distill"
    else:
        return
    raise UserError(
        f"{reader} one label per image, but data.mixup={mixup} gives every image two labels.",
        fix=f"set data.mixup=0, or {fix}",
    )


def student_network(settings: Settings, taps: list[str], execution: Execution) -> TappedNetwork:
    """Build the student with its memory layout."""
    student = settings.student(taps)
    set_layout(student.network, channels_last=execution.channels_last, compiled=execution.compile)
    return student
