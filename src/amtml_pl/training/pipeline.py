"""Pipeline of a run, from its plan to its record."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import pack, packed_again
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import RunRecord, TeacherFacts
from amtml_pl.system.collectives import (
    init_processes,
    lost_connections_reported,
    rank_zero_first,
    run_on_rank_zero,
)
from amtml_pl.system.console import console
from amtml_pl.system.files import write_text
from amtml_pl.system.launch import run_detached
from amtml_pl.system.ranks import is_rank_zero, world_size
from amtml_pl.teachers.live import check_accuracy
from amtml_pl.training.assemble import data_module
from amtml_pl.training.callbacks import passes_of_all_ranks
from amtml_pl.training.connect import connect, run_doctor
from amtml_pl.training.execution import choose_execution
from amtml_pl.training.fit import fit, measure_teacher
from amtml_pl.training.head_fit import provide_heads
from amtml_pl.training.initial_record import initial_record
from amtml_pl.training.plan import plan
from amtml_pl.training.plan_table import refuse_missing, show_plan
from amtml_pl.training.run_cache import RunCache
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.settings import Settings, settings_of
from amtml_pl.training.shorter_run import shorter_run_note
from amtml_pl.training.stages import Plan, Prepared, Ready, RunRequest
from amtml_pl.training.summary import show_summary
from amtml_pl.training.sweep.jobs import sweep_context
from amtml_pl.training.trainer import machine_errors_explained
from amtml_pl.types import SplitName

log = logging.getLogger(__name__)


def execute(request: RunRequest) -> RunRecord:
    """Execute a run from plan to record, in a folder that no other process uses."""
    init_processes()
    with lost_connections_reported(), locked(request.folder):
        if record := run_on_rank_zero(lambda: completed_before(request)):
            return record
        with rank_zero_first():
            planned = plan(request)
        if starts_over(request.settings) or not request.settings.resume:  # only once all else fits together
            run_on_rank_zero(request.folder.clear)
        with rank_zero_first():
            prepared = prepare(planned)
        ready = connect(prepared)
        with rank_zero_first():
            checkup = run_doctor(ready) if request.settings.doctor and is_rank_zero() else None
            if checkup is not None:
                checkup.refuse()
        return fit_and_record(ready, {} if checkup is None else checkup.gradient_share)


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Hold the run folder's lock on rank 0, blocking while another process has it."""
    folder.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.lock_file)
    with rank_zero_first():
        if is_rank_zero():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.warning("Waiting for another process that uses the run folder %s", folder.path)
                lock.acquire()
    try:
        yield
    finally:
        lock.release()


def starts_over(settings: Settings) -> bool:
    """Return True for a forced run, and for a student of a debug preset."""
    return settings.force or (settings.debug is not None and settings.role == "student")


def completed_before(request: RunRequest) -> RunRecord | None:
    """Return the record if the command has completed its run before."""
    settings, folder = request.settings, request.folder
    record = None if starts_over(settings) else folder.completed()
    if record is None:
        return None
    if packed := packed_again(settings.dataset.source.build(), settings.dataset.packed_root):
        refuse_other_pixels(record, packed.digest, folder)
    folder.refuse_changed(record, *folder.tables, *filter(Path.exists, folder.weights))
    console.print(f"The run is already completed: {folder.path} (force=true trains it again)", markup=False)
    show_summary(record, folder.path, with_next_commands=is_top_level(settings))
    return record


def prepare(planned: Plan, stored: Sequence[SplitName] = ("train",)) -> Prepared:
    """Show the plan, then pack the images and train the missing teachers.

    Args:
        planned: the stage before.
        stored: splits whose teacher outputs will be stored.

    Raises:
        UserError: for missing things with ``prepare=false``, or data that do not fit the configuration.
    """
    request, settings = planned.request, planned.request.settings
    show_plan(
        planned.steps, f"Plan of {request.experiment or 'the run'}", on_cpu=settings.trainer.device == "cpu"
    )
    is_new = is_top_level(settings) and not request.folder.last_checkpoint.exists()
    if is_new and (note := shorter_run_note(settings, request.folder)):
        console.print(note, markup=False, soft_wrap=True)  # its commands can be copied
    if not settings.prepare:
        refuse_missing(planned.steps)
    for teacher in planned.teachers:
        teacher.fetch()
    dataset, packed = settings.dataset, pack(planned.source, settings.dataset.packed_root)
    if (classes := len(packed.classes)) != dataset.num_classes:
        raise UserError(
            f"dataset.num_classes is not the number of classes in {dataset.name!r} (got "
            f"{dataset.num_classes}, expected {classes}). "
            f"The first classes are {', '.join(packed.classes[:5])}.",
            fix=f"set dataset.num_classes={classes}",
        )
    for folder, begun in begun_before(planned):
        refuse_other_pixels(begun, packed.digest, folder)
    data = data_module(settings, packed)
    data.train_batches(0, 0, world_size())  # errors of ranks and disk come before teachers are trained
    untrained = any(teacher.identity() is None for teacher in planned.teachers)
    if untrained and settings.cached and "train" in stored:
        RunCache(settings, planned.teachers, data, {}).refuse_full_disk(planned.hints)
    features = provide_heads(planned.teachers, data, settings)
    accuracy = {teacher.name: provide_teacher(teacher, data, settings) for teacher in planned.teachers}
    execution = choose_execution(settings, data.sizes["train"], planned.recorded)
    return Prepared(planned, execution, data, accuracy, features)


def provide_teacher(teacher: SelectedTeacher, data: PackedDataModule, settings: Settings) -> dict[str, float]:
    """Train a teacher without weights; raise a UserError for one that is too weak.

    Returns:
        Accuracy in [0, 1] by split, without logits none. Weights from elsewhere are measured on validation
        alone. Without a validation split, ``min_accuracy`` is compared with the accuracy on training images.
    """
    if teacher.options.head == "none":
        return {}
    accuracy: dict[str, float] = {}
    if not teacher.has_own_weights:
        if (record := teacher.record()) is None:
            console.rule(f"training teacher {teacher.name}", align="left")
            command = teacher.recipe.command()
            if world_size() == 1:
                own, recipe = settings_of(teacher.recipe.config()), str(teacher.options.recipe)
                record = execute(
                    RunRequest(own, teacher.folder, recipe, command, {"student": teacher.recipe.network})
                )
            else:  # outside the student's process group
                run_detached(shlex.split(command)[1:])
                record = teacher.trained()
        refuse_other_pixels(record, data.digest, teacher.folder)
        of_splits = {split: record.metrics.get(f"{split}/acc") for split in ("val", "test")}
        accuracy = {split: value for split, value in of_splits.items() if value is not None}
    split: SplitName = "val" if data.has_validation else "train"
    least = teacher.options.min_accuracy if settings.debug is None else None
    if split not in accuracy and (split == "val" or least is not None):
        accuracy[split] = measure_teacher(teacher, data, settings, split)
    if least is not None:
        check_accuracy(teacher.name, accuracy[split], least, split)
    return accuracy


def fit_and_record(ready: Ready, gradient_share: Mapping[str, float]) -> RunRecord:
    """Fit, and record the result or the failure."""
    folder, settings = ready.request.folder, ready.request.settings
    for place, begun in begun_before(ready.prepared.plan):
        refuse_other_teachers(begun, ready.facts, place)
    if is_rank_zero():
        write_text(folder.config_file, settings.text())
    about = initial_record(ready)
    folder.write_record(about)  # if the process is killed later, run.json already says "interrupted"
    try:
        with machine_errors_explained(folder), lost_connections_reported():
            fitted = fit(ready, about, gradient_share)
    except Exception as error:
        with suppress(OSError):  # a full disk is full for this record too; its status is already interrupted
            folder.write_record(about.replaced(status="failed", error=str(error) or repr(error)))
        raise
    cache = None if ready.cache is None else ready.cache.usage(passes_of_all_ranks(ready.module.spent))

    def completed() -> RunRecord:
        result = {"metrics": dict(fitted.metrics), "timing": fitted.timing, "cache": cache}
        budget = {**about.budget, "epochs": fitted.epochs}
        compiled = getattr(ready.module.compiled, "part", None) or ""
        folder.write_record(
            about.replaced(
                status="completed", budget=budget, compiled=compiled, **result, files=folder.seal()
            )
        )
        return folder.completed() or about

    record = run_on_rank_zero(completed)
    show_summary(record, folder.path, with_next_commands=is_top_level(settings))
    return record


def begun_before(planned: Plan) -> list[tuple[RunFolder, RunRecord]]:
    """Return what a run continues: its own beginning, and the run that it extends."""
    folder, origin = planned.request.folder, planned.origin
    own = folder.record()
    found = [] if own is None else [(folder, own)]
    return found if origin is None else [*found, (origin.folder, origin.record)]


def is_top_level(settings: Settings) -> bool:
    """Return True if a run belongs to neither a sweep nor a teacher."""
    return settings.role == "student" and sweep_context.sweep is None


def refuse_other_pixels(record: RunRecord, digest: str, folder: RunFolder) -> None:
    """Raise a UserError for a run that was trained before the images changed."""
    if record.dataset.digest != digest:
        raise UserError(
            f"The images of {record.dataset.name!r} have changed since the run in {folder.path} was trained "
            f"(got digest {digest[:12]}, expected {record.dataset.digest[:12]}).",
            fix=f"train the run again: {record.command} force=true",
        )


def refuse_other_teachers(record: RunRecord, teachers: Mapping[str, TeacherFacts], folder: RunFolder) -> None:
    """Raise a UserError for resuming a run whose teachers have changed."""
    for name, facts in teachers.items():
        then = record.teachers[name].weights_digest if name in record.teachers else None
        if then != facts.weights_digest:
            raise UserError(
                f"The network weights of teacher {name!r} have changed since the run in {folder.path} began "
                f"(got digest {facts.weights_digest[:12]}, expected {str(then)[:12]}).",
                fix=f"train the run again: {record.command} force=true",
            )
