"""Plan of a run, from parts that are built once to check that they fit."""

from __future__ import annotations

from collections.abc import Mapping

from amtml_pl.data.packing import find_packed
from amtml_pl.data.source import DatasetSource
from amtml_pl.distill.compatibility import TeacherSource, refuse_without_logits
from amtml_pl.errors import UserError
from amtml_pl.system.checkpoint_file import read_checkpoint
from amtml_pl.teachers.cache.serve import CachedTeachers
from amtml_pl.teachers.live import LiveTeachers, Teacher
from amtml_pl.training.assemble import data_module, training_module
from amtml_pl.training.callbacks import epochs_in
from amtml_pl.training.execution import EAGER, choose_execution
from amtml_pl.training.extension import find_origin
from amtml_pl.training.plan_table import held_out_step, make_plan, training_images
from amtml_pl.training.run_cache import RunCache
from amtml_pl.training.selected_teacher import SelectedTeacher, names
from amtml_pl.training.settings import Settings
from amtml_pl.training.stages import Plan, RunRequest
from amtml_pl.training.validation import refuse_unmeasured, refuse_without_validation, validates
from amtml_pl.types import Shape, SplitName


def plan(request: RunRequest) -> Plan:
    """Return a run's plan.

    Every part is built once to find early what does not fit; `connect` builds those that train.
    """
    settings, last = request.settings, request.folder.last_checkpoint
    origin = find_origin(settings, request.command, request.experiment)
    source: DatasetSource = settings.dataset.source.build()
    teachers = settings.teachers()
    headless = [teacher.name for teacher in teachers if teacher.options.head == "none"]
    refuse_without_logits(settings.method.terms(), settings.method.weighting.build(), headless)
    refuse_without_cache(settings)
    cache = found_cache(settings, source, teachers, "train") if settings.cached else None
    live, hints = networks_and_hints(settings, teachers, cache)
    unread: TeacherSource | None = None  # of teachers that have not run yet
    if teachers:
        unread = CachedTeachers(names(teachers)) if settings.cached else LiveTeachers(live)
    module = training_module(settings, unread, hints, EAGER)
    if not validates(settings, source):
        refuse_without_validation(teachers, module.weighting)
        refuse_unmeasured(settings.trainer.callbacks)
    held_out = None
    if module.needs_held_out:
        held_out = held_out_step(settings, len(teachers), found_cache(settings, source, teachers, "val"))
    resumed = settings.resume and not settings.force and last.exists()
    begun = request.folder if resumed else None if origin is None else origin.folder
    done = 0 if begun is None else epochs_in(read_checkpoint(begun.last_checkpoint))
    record = None if begun is None else begun.record()
    images = training_images(settings, source)  # before packing, what the data set's YAML says
    recorded = None if record is None else record.execution
    estimate = None
    if images is not None:
        estimate = choose_execution(settings, images, recorded, report=False)
    steps = make_plan(settings, source, module.student, teachers, hints, cache, estimate, held_out, done)
    return Plan(
        request=request,
        source=source,
        teachers=teachers,
        live=live,
        hints=hints,
        needs_held_out=module.needs_held_out,
        recorded=recorded,
        origin=origin,
        steps=tuple(steps),
    )


def refuse_without_cache(settings: Settings) -> None:
    """Raise a UserError for live teachers, if terms need statistics of cached hints."""
    names = [name for name, term in settings.method.terms().items() if term.summed_hints(settings.offered)]
    if names and not settings.cached:
        raise UserError(
            f"The loss terms {names} need statistics over all maps of the teachers, which the cache collects "
            "(got teacher_source=live, expected cached).",
            fix="set teacher_source=cached, or select a loss without these terms: 'loss=[TERM,TERM]'",
        )


def found_cache(
    settings: Settings, source: DatasetSource, teachers: tuple[SelectedTeacher, ...], split: SplitName
) -> RunCache | None:
    """Return the run's stores for a split; None while images or teacher weights are missing."""
    packed = find_packed(source, settings.dataset.packed_root)
    if packed is None or any(teacher.identity() is None for teacher in teachers):
        return None
    return RunCache(settings, teachers, data_module(settings, packed), {}, split)


def networks_and_hints(
    settings: Settings, teachers: tuple[SelectedTeacher, ...], cache: RunCache | None
) -> tuple[tuple[Teacher, ...], Mapping[str, Shape]]:
    """Return the networks of live teachers, if needed, and the shape of every hint."""
    if cache is not None and (known := cache.hint_shapes()) is not None:
        return (), known
    live: list[Teacher] = []
    hints: dict[str, Shape] = {}
    dataset = settings.dataset
    for selected in teachers:
        teacher = selected.fresh()
        teacher.check_classes(dataset.num_classes, dataset.image_size)
        # Read now, so that an unfit file is reported before hours of work.
        if selected.has_own_weights and not selected.to_download:
            selected.load_weights(teacher)
        hints |= teacher.hint_shapes(dataset.image_size)
        if not settings.cached:
            live.append(teacher)
    return tuple(live), hints
