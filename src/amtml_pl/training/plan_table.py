"""Rows of a run's plan: its needs in building order, and which are missing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from torch.func import functional_call

from amtml_pl.config.schedules import schedule_warnings
from amtml_pl.data.packing import find_packed, is_packed, packed_folder
from amtml_pl.data.source import DatasetSource
from amtml_pl.errors import UserError
from amtml_pl.models.state import evaluation_mode
from amtml_pl.models.taps import TappedNetwork, cost
from amtml_pl.runs.record import Execution
from amtml_pl.system.console import console, counted, duration, error_console
from amtml_pl.teachers.cache.storage import stored_bytes
from amtml_pl.training.options import DatasetOptions
from amtml_pl.training.run_cache import RunCache
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.settings import Settings
from amtml_pl.types import Shape, counted_kinds

TIMED_IMAGES = 16
BUILD = "run python -m amtml_pl.cache action=build with the overrides of this run"


@dataclass(frozen=True)
class PlanStep:
    """Requirement of a run, as a row of its plan.

    Attributes:
        what: the data set, a teacher, the teachers' outputs or the student.
        state: what exists of it, or what will be done, for the reader.
        missing: True if the run has to make it, which ``prepare=false`` forbids.
        size: bytes on disk; None if unknown or none.
        seconds: estimated time on this machine's CPU; None if unknown or none.
        fix: command or override that provides it; None if nothing can be done ahead.
        warning: sentence that is printed below the table.
    """

    what: str
    state: str
    missing: bool = False
    size: int | None = None
    seconds: float | None = None
    fix: str | None = None
    warning: str | None = None


def make_plan(
    settings: Settings,
    source: DatasetSource,
    student: TappedNetwork,
    teachers: Sequence[SelectedTeacher],
    hints: Mapping[str, Shape],
    cache: RunCache | None,
    execution: Execution | None,
    held_out: PlanStep | None = None,
    done: int = 0,
) -> list[PlanStep]:
    """List everything that the run needs, with an estimate of size and time.

    Times are measured on this machine's CPU, with an error of a factor of two. They are an upper bound for an
    accelerator. A teacher whose outputs are all cached is neither timed nor built.
    """
    here = is_packed(source, settings.dataset.packed_root) or source.missing() is None
    images = training_images(settings, source) if here else None
    size, epochs, cached = settings.dataset.image_size, settings.trainer.epochs, settings.cached
    passes = epochs
    steps = data_steps(settings.dataset, source)
    if cached:
        passes = views_of_run(settings) if cache is None else len(cache.missing())
    forwards: float | None = 0.0
    for teacher in teachers:
        trained = teacher.has_own_weights or teacher.record() is not None
        timed = None if images is None or (trained and not passes) else teacher.fresh().network
        steps.append(teacher_step(settings, teacher, images, timed))
        forward = None if timed is None else seconds_per_image(timed, size, training=False)
        forwards = None if forwards is None or images is None else forwards + (forward or 0.0)
    seconds = None if forwards is None or images is None else images * passes * forwards
    if cached:
        per_image = bytes_per_image(settings, len(teachers), hints)
        total = None if images is None else images * passes * per_image
        steps.append(cache_step(cache, passes, total, seconds))
    if held_out is not None:
        steps.append(held_out)
    own = cost(student, size)
    if images is not None and seconds is not None:
        training = images * (epochs - done) * seconds_per_image(student, size, training=True)
        seconds = training if cached else training + seconds * (epochs - done) / epochs
    what = f"student ({own.parameters:,} parameters, {own.macs / 1e6:.1f} M MACs)"
    left = f" ({epochs - done} left)" if done else ""
    state = f"{counted(epochs, 'epoch')}{left}, loss terms {', '.join(settings.method.loss)}"
    state += "" if execution is None else f"; {execution}"
    state += "" if settings.init_from is None else f"; starts from {settings.init_from}"
    warnings = schedule_warnings(settings.method.scheduler.plain(), epochs)
    steps.append(PlanStep(what, state, seconds=seconds, warning=" ".join(warnings) or None))
    return steps


def data_steps(dataset: DatasetOptions, source: DatasetSource) -> list[PlanStep]:
    """Return the rows for raw and packed data; raw data only until it is packed."""
    folder = packed_folder(source, dataset.packed_root)
    if (packed := find_packed(source, dataset.packed_root)) is not None:
        size = sum(file.stat().st_size for file in folder.iterdir())
        left_out = f"; {counted_kinds(packed.left_out)}" if packed.left_out else ""
        return [PlanStep(f"data set {dataset.name}", f"packed in {folder}{left_out}", size=size)]
    raw = PlanStep(f"data set {dataset.name}", "found")
    if (missing := source.missing()) is not None:
        known = source.download_bytes()
        state = "missing" if known is None else "to download"
        raw = PlanStep(raw.what, state, missing=True, size=known, fix=missing)
    return [raw, PlanStep("packed data", f"to write to {folder}", missing=True, fix="prepare=true")]


def teacher_step(
    settings: Settings, teacher: SelectedTeacher, images: int | None, timed: TappedNetwork | None
) -> PlanStep:
    """Return the row for the origin of a teacher's weights."""
    if teacher.has_own_weights:
        what, place = f"teacher {teacher.name}", teacher.place or "its constructor"
        if teacher.published is not None and teacher.to_download:
            state = f"network weights to download from {teacher.published.url}"
            return PlanStep(what, state, missing=True, fix="prepare=true")
        state = f"network weights from {place}"
        if teacher.options.head != "linear":
            return PlanStep(what, state)
        if (fitted := teacher.fitted_head()) is None:
            state += ", linear head to fit on its features"
            return PlanStep(what, state, missing=True, fix="prepare=true")
        return PlanStep(what, f"{state}, linear head, val/acc {fitted.record.accuracy:.4f}")
    if (record := teacher.record()) is not None:
        accuracy = record.metrics.get("val/acc")
        measured = "" if accuracy is None else f", val/acc {accuracy:.4f}"
        return PlanStep(f"teacher {teacher.name}", f"trained{measured}")
    epochs = teacher.recipe.config().trainer.max_epochs
    seconds = None
    if images is not None and timed is not None:
        seconds = images * epochs * seconds_per_image(timed, settings.dataset.image_size, training=True)
    return PlanStep(
        f"teacher {teacher.name}",
        f"to train for {counted(epochs, 'epoch')} with the recipe {teacher.options.recipe}",
        missing=True,
        seconds=seconds,
        fix=None if settings.prepare else teacher.recipe.command(),  # costs half a second
    )


def views_of_run(settings: Settings) -> int:
    """Return the number of views that a run's epochs use: min(V, E)."""
    views, epochs = settings.data.views, settings.trainer.epochs
    distinct = settings.data.augment.build().distinct_views if views == "all" else views
    return int(epochs if distinct is None else min(distinct, epochs))


def bytes_per_image(settings: Settings, teachers: int, hints: Mapping[str, Shape]) -> int:
    """Return the bytes on disk of an image's outputs: all teachers' logits and hints."""
    logits = teachers * stored_bytes((settings.dataset.num_classes,), settings.cache.logits)
    return logits + sum(stored_bytes(shape, settings.cache.hints) for shape in hints.values())


def cache_step(cache: RunCache | None, views: int, size: int | None, seconds: float | None) -> PlanStep:
    """Return the row for the teachers' outputs: cached ones, and the cost of the others."""
    if cache is not None and not views:
        state = f"{counted(len(cache.views), 'view')} cached in {cache.root}"
        return PlanStep("teacher outputs", state, size=cache.bytes_on_disk())
    state = f"to compute: {counted(views, 'view')}, each before its first epoch"
    if cache is not None and (other := cache.nearest()):
        state += f"; in the cache, {other}"
    return PlanStep("teacher outputs", state, missing=True, size=size, seconds=seconds, fix=BUILD)


def held_out_step(settings: Settings, teachers: int, cache: RunCache | None) -> PlanStep:
    """Return the row for the teachers' outputs on the validation split."""
    what = "teacher outputs, validation"
    if cache is not None and not cache.missing():
        return PlanStep(what, f"cached in {cache.root}", size=cache.bytes_on_disk())
    size = None if cache is None else len(cache.split) * bytes_per_image(settings, teachers, {})
    fix = BUILD if settings.cached else "prepare=true"
    return PlanStep(what, "to compute once", missing=True, size=size, fix=fix)


def training_images(settings: Settings, source: DatasetSource) -> int | None:
    """Return images per epoch; None while the data set's size is not known."""
    packed = find_packed(source, settings.dataset.packed_root)
    known = settings.dataset.train_images if packed is None else len(packed.splits["train"])
    return min((size for size in (settings.data.train_size, known) if size is not None), default=None)


def seconds_per_image(
    network: TappedNetwork, image_size: int, *, training: bool, device: str = "cpu"
) -> float:
    """Measure a network's seconds per image: forward, and backward in ``training``."""
    batch = torch.zeros(TIMED_IMAGES, 3, image_size, image_size, device=device)
    network.to(device)
    parameters = {name: value.detach().requires_grad_() for name, value in network.named_parameters()}

    def once() -> float:
        start = time.perf_counter()
        logits = functional_call(network, parameters, (batch,)).logits
        if training:
            torch.autograd.grad(logits.sum(), list(parameters.values()), allow_unused=True)
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    with evaluation_mode(network), torch.set_grad_enabled(training):  # blank images train nothing
        return min(once(), once()) / TIMED_IMAGES


def show_plan(plan: Sequence[PlanStep], title: str, *, on_cpu: bool = True) -> None:
    """Print the plan as a table."""
    table = Table(title=escape(title), title_justify="left", show_edge=False)
    for column in ("", "state", "size", "estimated time" if on_cpu else "estimated time (this CPU)"):
        table.add_column(column, overflow="fold")
    for step in plan:
        size = "" if step.size is None else decimal(step.size)
        seconds = "" if step.seconds is None else duration(step.seconds)
        table.add_row(escape(step.what), escape(step.state), size, seconds)
    console.print(table)
    for step in plan:
        if step.warning is not None:
            error_console.print(f"[yellow]warning:[/] {escape(step.warning)}")


def refuse_missing(plan: Sequence[PlanStep]) -> None:
    """Raise one UserError for everything in the plan that is missing."""
    missing = [step for step in plan if step.missing]
    if missing:
        listed = "\n".join(f"  - {step.what}: {step.state} ({step.fix})" for step in missing)
        raise UserError(
            f"prepare=false forbids making {counted(len(missing), 'missing part')} of the run:\n{listed}",
            fix="pass prepare=true to make the missing parts",
        )
