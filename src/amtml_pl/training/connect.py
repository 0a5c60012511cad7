"""From prepared teachers to a module that can be fitted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.distill.doctor.checkup import Checkup
from amtml_pl.distill.doctor.report import check_up, print_warnings
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.timing import Spending
from amtml_pl.errors import UserError
from amtml_pl.models.classifier_head import ClassifierHead
from amtml_pl.models.hint import HintSpec
from amtml_pl.models.layout import set_execution
from amtml_pl.system.collectives import rank_zero_first
from amtml_pl.system.ranks import is_rank_zero
from amtml_pl.system.records import write_record
from amtml_pl.teachers.cache.catalogue import TeacherExamination
from amtml_pl.teachers.cache.serve import CachedTeachers
from amtml_pl.teachers.live import LiveTeachers
from amtml_pl.teachers.selected import SelectedTeacher, names
from amtml_pl.training.assemble import data_module, training_module
from amtml_pl.training.run_cache import RunCache, exact, examination
from amtml_pl.training.stages import Plan, Prepared, Ready, RunRequest
from amtml_pl.types import Batch, TeacherOutputs


def connect(prepared: Prepared) -> Ready:
    """Build the module with the teacher outputs that the first epoch needs.

    A cached run computes what its first view lacks; a live one loads its teachers' weights. Then the
    weighting is calibrated and classifiers are cut out, if a part of the method needs it.

    Raises:
        UserError: if outputs are missing and must not be made, are damaged, or do not fit on the disk.
    """
    plan, settings = prepared.plan, prepared.plan.request.settings
    cache = source = reader = None
    if settings.cached:
        cache = RunCache(settings.cache, plan.teachers, prepared.data, prepared.accuracy)
        take(cache, plan.request)
        cache.refuse_full_disk(plan.hints)
        source = CachedTeachers(names(plan.teachers), cache.teachers, cache.views, settings.cache.device)
    live = None if settings.cached or not plan.teachers else live_teachers(plan)
    module = training_module(settings, settings.method.terms(), source or live, plan.hints)
    if cache is not None and source is not None:
        reader = CacheReader(cache, source, module.spent, may_build=settings.prepare)
        reader.provide(prepared.data.train_view(0))
    module.set_teacher_heads(heads(plan.teachers, module.head_names()))
    accuracy = {name: by_split["val"] for name, by_split in prepared.accuracy.items()}
    module.calibrate_weighting(accuracy, lambda: held_out_outputs(prepared, module))
    data = data_module(settings, prepared.data.packed, reader)
    if cache is not None:
        facts = cache.facts()
    else:
        facts = {s.name: s.facts(teacher) for s, teacher in zip(plan.teachers, plan.live, strict=True)}
    return Ready(prepared, module, data, cache, facts)


@dataclass(frozen=True)
class CacheReader:
    """Reader of a run's cache that builds missing views before they are read."""

    cache: RunCache
    source: CachedTeachers
    spent: Spending
    may_build: bool

    def provide(self, view: int) -> None:
        """Compute the missing outputs of a view; a UserError if that is not allowed."""
        refuse_unprepared(self.cache, view, may_build=self.may_build)
        built = self.cache.provide([view])
        self.spent.count_build(built.seconds, built.teacher_passes)

    def in_loader(self) -> Callable[[Batch], TeacherOutputs] | None:
        """Return a function that reads a batch's outputs; None for outputs on the device."""
        return None if self.source.is_resident else self.source.read


def live_teachers(plan: Plan) -> LiveTeachers:
    """Return the networks with their weights, executed as for a cache."""
    layout = plan.request.settings.cache.build  # so that both give the same numbers to the bit
    for selected, teacher in zip(plan.teachers, plan.live, strict=True):
        selected.load_weights(teacher)
        network = teacher.network.network
        set_execution(network, channels_last=layout.channels_last, compiled=layout.compile)
    return LiveTeachers(plan.live)


def heads(teachers: tuple[SelectedTeacher, ...], wanted: tuple[str, ...]) -> dict[str, ClassifierHead]:
    """Return the classifiers that terms run, by hint; loads one teacher at a time."""
    cut: dict[str, ClassifierHead] = {}
    for selected in teachers:
        if hints := [hint for name, _, hint in (w.partition("/") for w in wanted) if name == selected.name]:
            loaded = selected.load()
            for hint in hints:
                head = ClassifierHead(loaded.network.network, HintSpec.parse(hint).tap, loaded.class_map)
                cut[f"{selected.name}/{hint}"] = head
    return cut


def held_out_outputs(
    prepared: Prepared, module: StudentModule
) -> tuple[Float[Tensor, "N M K"], Int64[Tensor, " N"]]:
    """Return the teachers' validation logits and labels; compute missing ones."""
    plan, data = prepared.plan, prepared.data
    rows = data.split("val")
    labels = rows.stored.labels[rows.rows]
    source = module.teacher_source
    if isinstance(source, LiveTeachers) and not all(
        selected.is_as_constructed(teacher)
        for selected, teacher in zip(plan.teachers, source.teachers, strict=True)
    ):  # outputs of random weights must not be kept
        outputs = [source(batch).logits for batch in data.eval_batches(rows)]
        return torch.cat(outputs), labels
    cache = held_out_cache(prepared)
    take(cache, plan.request)
    cache.refuse_full_disk({})
    refuse_unprepared(cache, 0, may_build=plan.request.settings.prepare)
    built = cache.provide(cache.views)
    module.spent.count_build(built.seconds, {})  # passes are counted of training images
    return stored_logits(cache), labels


def held_out_logits(prepared: Prepared) -> Float[Tensor, "N M K"] | None:
    """Return the teachers' validation logits; None unless all are cached."""
    cache = held_out_cache(prepared)
    if cache.missing():
        return None
    cache.check()
    return stored_logits(cache)


def held_out_cache(prepared: Prepared) -> RunCache:
    """Return the stores for the validation split; exact ones for live teachers."""
    settings = prepared.plan.request.settings
    options = settings.cache if settings.cached else exact(settings.cache)
    return RunCache(options, prepared.plan.teachers, prepared.data, prepared.accuracy, "val")


def stored_logits(cache: RunCache) -> Float[Tensor, "N M K"]:
    """Return the cached logits of a split without augmentation, in float32."""
    logits = [teacher.logits.open(0).whole().float() for teacher in cache.teachers]
    return torch.stack(logits, dim=1)


def take(cache: RunCache, request: RunRequest) -> None:
    """Register the run as a user of these stores, and check them once per run."""
    with rank_zero_first():
        if is_rank_zero():
            cache.note_use(request.folder.path, request.command)
            cache.check()
    cache.trust_what_is_there()


def refuse_unprepared(cache: RunCache, view: int, *, may_build: bool) -> None:
    """Raise a UserError for outputs that are missing and must not be computed."""
    if not may_build and view in cache.missing():
        raise UserError(
            f"prepare=false, and view {view} of the teachers' outputs for the {cache.split.name} "
            f"split is missing below {cache.root}.",
            fix="prepare=true, or python -m amtml_pl.cache action=build with these overrides",
        )


def examine(ready: Ready, *, thoroughly: bool = False) -> Checkup:
    """Run the doctor on a ready run, write its report and print its warnings.

    Live teachers are examined only if ``thoroughly``.
    """
    examined: Mapping[str, TeacherExamination] = {}
    if ready.cache is not None:
        examined = ready.cache.examinations()
    elif thoroughly:
        normalisation = ready.request.settings.cache.normalisation
        examined = {
            selected.name: examination(selected, selected.load(), ready.data, normalisation)
            for selected in ready.teachers
        }
    found = check_up(ready.module, ready.data, examined, ready.request.settings.expected_defects)
    write_record(ready.request.folder.doctor_file, found)
    print_warnings(found)
    return found
