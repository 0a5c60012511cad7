"""Early check of a run's parts on torch's meta device, without weights and images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from pytorch_lightning.callbacks import DeviceStatsMonitor

from amtml_pl.config.build import ObjectSpec
from amtml_pl.errors import UserError, first_line, naming
from amtml_pl.losses.term import LossTerm, mixture_of_targets
from amtml_pl.models.taps import tap_shapes
from amtml_pl.system.console import quieten
from amtml_pl.system.optional_packages import imported
from amtml_pl.training.assemble import check_classes_of_student
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.settings import Settings
from amtml_pl.training.shorter_run import rate_after
from amtml_pl.weighting.scheme import Weighting

SETTINGS = "correct the values of optimizer, scheduler or trainer (add --cfg job to print them)"


def check_parts(settings: Settings) -> None:
    """Raise one UserError for all parts that do not fit on the meta device."""
    quieten()  # again: the import of Lightning has set the level of its log
    problems = [*student_problems(settings), *teacher_problems(settings), *training_problems(settings)]
    problems += attached_problems(settings)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        listed = "\n".join("  - " + str(problem).replace("\n", "\n    ") for problem in problems)
        raise UserError(f"The configuration has {len(problems)} mistakes:\n{listed}")


def student_problems(settings: Settings) -> Iterator[UserError]:
    """Yield errors of the student: its taps and its classes."""
    try:
        method = settings.method
        parts: list[LossTerm | Weighting] = [*method.terms().values()]
        if settings.offered:
            parts.append(method.weighting.build())
        taps = [tap for part in parts for tap in part.student_taps()]
        with naming("student"), torch.device("meta"):
            network = settings.student(taps)
            check_classes_of_student(settings, tap_shapes(network, settings.dataset.image_size)[0])
    except UserError as problem:
        if not needs_numbers(problem):
            yield problem


def training_problems(settings: Settings) -> Iterator[UserError]:
    """Yield errors of optimiser, schedule over all epochs, and trainer."""
    try:
        rate_after(settings, settings.trainer.epochs)
    except UserError as problem:
        yield problem
    except Exception as error:  # any error of a constructor with a wrong number
        yield UserError(f"The optimiser or its scheduler cannot be built: {error}.", fix=SETTINGS)
    try:
        settings.trainer.trainer.maker()(devices=1, num_nodes=1, logger=False)
    except UserError as problem:
        yield problem
    except Exception as error:
        yield UserError(f"The trainer cannot be built: {first_line(error).rstrip('.')}.", fix=SETTINGS)


def attached_problems(settings: Settings) -> Iterator[UserError]:
    """Yield errors of loggers and callbacks, such as a package that is not installed."""
    options = settings.trainer
    for group, parts, given in (
        ("logger", options.loggers, {"save_dir": "."}), ("callbacks", options.callbacks, {}),
    ):  # fmt: skip
        for name, part in parts.items():
            try:
                attached = part.maker()(**given)
                if isinstance(attached, DeviceStatsMonitor) and reads_the_cpu(part, options.device):
                    imported("psutil", extra="device-stats")
            except UserError as problem:
                yield problem
            except Exception as error:
                yield UserError(
                    f"{group}.{name} cannot be built: {first_line(error).rstrip('.')}.",
                    fix=f"correct the values of {group}.{name}",
                )


def reads_the_cpu(monitor: ObjectSpec, device: str) -> bool:
    """Return True if Lightning's monitor needs psutil, which it only finds out in the fit."""
    wanted = monitor.plain().get("cpu_stats")
    return device == "cpu" if wanted is None else bool(wanted)


def teacher_problems(settings: Settings) -> Iterator[UserError]:
    """Yield errors of each teacher: classes, class map, and hints that terms read."""
    try:
        selected = settings.teachers()
    except UserError as problem:
        yield problem
        return
    yield from class_problems(settings, selected)
    for teacher in (each for each in selected if not each.options.pretrained):
        try:
            with naming(f"teacher.{teacher.name}"), torch.device("meta"):
                network = teacher.fresh()
                network.check_classes(settings.dataset.num_classes, settings.dataset.image_size)
                network.hint_shapes(settings.dataset.image_size)
        except UserError as problem:
            if not needs_numbers(problem):
                yield problem


def class_problems(settings: Settings, teachers: Sequence[SelectedTeacher]) -> Iterator[UserError]:
    """Yield errors of teachers that do not know every class."""
    try:
        maps = [teacher.class_map for teacher in teachers]
    except UserError as problem:
        yield problem
        return
    gaps = [t.name for t, found in zip(teachers, maps, strict=True) if found is not None and None in found]
    if not gaps:
        return
    complete = [found for found in maps if found is None or None not in found]
    wanted = settings.data.classes or range(settings.dataset.num_classes)
    known = {c for found in maps for c, output in enumerate(found or ()) if output is not None}
    if not complete and (unknown := [c for c in wanted if c not in known]):
        yield UserError(
            f"None of the teachers {gaps} knows the classes {unknown[:10]} of {settings.dataset.name!r}.",
            fix="add a teacher that knows them, or leave them out: "
            f"'data.classes={[c for c in wanted if c in known]}'".replace(", ", ","),
        )
    for teacher, found in zip(teachers, maps, strict=True):
        if found is not None and all(found[c] is None for c in wanted):
            yield UserError(
                f"Teacher {teacher.name!r} knows none of the classes {[*wanted][:10]} of the images.",
                fix="leave the teacher out, or change data.classes",
            )
    terms = settings.method.terms().values()
    if mixture_of_targets(terms, settings.method.mixture) == "logits":
        yield UserError(
            f"mixture=logits cannot average the teachers {gaps}, which have no logits for some classes.",
            fix="mixture=probabilities",
        )


def needs_numbers(problem: UserError) -> bool:
    """Return True if an error only means that the meta device has no numbers."""
    return "meta" in str(problem.__cause__ or "")
