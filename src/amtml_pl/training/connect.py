"""From prepared teachers to a module that can be fitted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from amtml_pl.distill.doctor.checkup import Checkup
from amtml_pl.distill.doctor.report import check_up, print_warnings
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.timing import Spending
from amtml_pl.errors import UserError, first_line
from amtml_pl.models.classifier_head import ClassifierHead
from amtml_pl.models.hint import HintSpec
from amtml_pl.models.layout import set_execution
from amtml_pl.models.teacher_head import LinearHead
from amtml_pl.runs.record import TeacherFacts
from amtml_pl.system.collectives import rank_zero_first
from amtml_pl.system.ranks import is_rank_zero, world_size
from amtml_pl.system.records import write_record
from amtml_pl.teachers.cache.serve import CachedTeachers
from amtml_pl.teachers.live import LiveTeachers, Teacher
from amtml_pl.training.assemble import data_module, training_module
from amtml_pl.training.options import TrainerOptions
from amtml_pl.training.run_cache import RunCache, examination
from amtml_pl.training.selected_teacher import SelectedTeacher, names
from amtml_pl.training.stages import Prepared, Ready
from amtml_pl.types import Batch, Shape, SplitName, TeacherOutputs


def connect(prepared: Prepared) -> Ready:
    """Build the module with the teacher outputs that the first epoch needs.

    A cached run computes the missing outputs of its first view, or of all views if a term needs statistics of
    hints. A live run loads its teachers' weights. Then the teachers' classifiers are cut out and the
    weighting is calibrated, if the method needs it.

    Raises:
        UserError: if outputs are damaged, do not fit on the disk, or are missing with ``prepare=false``.
    """
    plan, settings = prepared.plan, prepared.plan.request.settings
    cache = source = reader = None
    if settings.cached:
        cache = open_cache(prepared, "train")
        source = CachedTeachers(names(plan.teachers), cache.teachers, cache.views, settings.cache.placement)
    live = LiveTeachers(plan.live) if plan.live else None
    for selected, teacher in zip(plan.teachers, plan.live, strict=False):  # none are live in a cached run
        selected.load_weights(teacher)
        selected.load_head(teacher)
        layout = settings.cache.build  # as for a cache, so that both give the same numbers to the bit
        set_execution(teacher.network.network, channels_last=layout.channels_last, compiled=layout.compile)
    module = training_module(settings, source or live, plan.hints, prepared.execution)
    module.spent.count_build(prepared.features.seconds, prepared.features.teacher_passes)
    if cache is not None and source is not None:
        reader = CacheReader(cache, source, module.spent)
        reader.provide(prepared.data.train_view(0))
        if any(teacher.summed for teacher in cache.teachers):
            reader.provide(*cache.views)
            with rank_zero_first():
                module.set_hint_statistics(cache.statistics())
    module.set_class_counts(prepared.data.class_counts())
    module.set_teacher_heads(heads(plan.teachers, module.head_names()))
    accuracy = {name: of["val"] for name, of in prepared.accuracy.items() if "val" in of}
    module.calibrate_weighting(accuracy, lambda: held_out_outputs(prepared, module))
    data = data_module(settings, prepared.data.packed, reader)
    module.steps_per_epoch = steps_per_epoch(settings.trainer, len(data.train_batches(0, 0, world_size())))
    if cache is None:
        facts = {s.name: s.facts(teacher) for s, teacher in zip(plan.teachers, plan.live, strict=True)}
    else:
        examined = {name: each.model_dump(exclude={"examination"}) for name, each in cache.examined().items()}
        facts = {name: TeacherFacts(**values) for name, values in examined.items()}
    return Ready(prepared=prepared, module=module, data=data, cache=cache, facts=facts)


def steps_per_epoch(options: TrainerOptions, batches: int) -> int:
    """Return the optimiser steps of an epoch, of which the last may accumulate fewer batches."""
    trainer = options.trainer.plain()
    limit = trainer.get("limit_train_batches")
    if limit is not None:
        batches = min(batches, int(limit if isinstance(limit, int) else batches * limit))
    accumulated: int = trainer.get("accumulate_grad_batches", 1)
    return max(1, math.ceil(batches / accumulated))


@dataclass(frozen=True)
class CacheReader:
    """Reader of a run's cache that builds missing views before they are read."""

    cache: RunCache  # the stores of the training split
    source: CachedTeachers  # reads them
    spent: Spending  # receives the cost of building

    def provide(self, *views: int) -> None:
        """Compute the missing outputs of these views, and count the cost."""
        built = self.cache.provide(views)
        self.spent.count_build(built.seconds, built.teacher_passes)

    def in_loader(self) -> Callable[[Batch], TeacherOutputs] | None:
        """Return a function that reads a batch's outputs; None for outputs on the device."""
        return None if self.source.is_resident else self.source.read


def heads(teachers: tuple[SelectedTeacher, ...], wanted: tuple[str, ...]) -> dict[str, nn.Module]:
    """Return the classifiers that terms run, by hint; loads one teacher at a time."""
    cut: dict[str, nn.Module] = {}
    for selected in teachers:
        if own := [name for name in wanted if name.partition("/")[0] == selected.name]:
            loaded = selected.load()
            for name in own:
                tap = HintSpec.parse(name.partition("/")[2]).tap
                head = classifier_behind(loaded, tap)
                refuse_other_maps(head, name, loaded.hint_shapes(selected.image_size)[name])
                cut[name] = head
    return cut


def classifier_behind(teacher: Teacher, tap: str) -> nn.Module:
    """Return a teacher's classifier, from a tap's map to logits, frozen."""
    head, network = teacher.network.head, teacher.network.network
    if not isinstance(head, LinearHead) or head.linear is None:
        return ClassifierHead(network, tap, teacher.class_map)
    if head.tap == tap:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head.linear)
    if head.tap is None:
        return nn.Sequential(ClassifierHead(network, tap), head.linear)
    raise UserError(
        f"The fitted classifier of teacher {teacher.name!r} reads {head.tap!r}, and not the map of {tap!r}.",
        fix=f"set teacher.{teacher.name}.hint={tap}, or select a loss without regression_confidence and srrl",
    )


def refuse_other_maps(head: nn.Module, hint: str, shape: Shape) -> None:
    """Raise a UserError if a head does not take maps of the hint's shape."""
    try:
        head(torch.zeros(2, *shape))
    except (RuntimeError, ValueError) as error:
        raise UserError(
            "The classifier of a teacher, which the loss terms regression_confidence and srrl run, does not "
            f"take the hint {hint!r} (got a map of shape {shape}, expected what its module returns: "
            f"{first_line(error)}).",
            fix="set teacher.NAME.hint to a module that returns maps (B, C, H, W), or choose a loss without "
            "these terms, such as 'loss=[ce,kd]'",
        ) from error


def held_out_outputs(
    prepared: Prepared, module: StudentModule
) -> tuple[Float[Tensor, "N M K"], Int64[Tensor, " N"]]:
    """Return the teachers' validation logits and labels; compute missing ones."""
    plan, source, rows = prepared.plan, module.teacher_source, prepared.data.split("val")
    labels = rows.stored.labels[rows.rows]
    if isinstance(source, LiveTeachers) and not all(
        map(SelectedTeacher.is_as_constructed, plan.teachers, source.teachers)
    ):  # outputs of random weights must not be kept
        outputs = [source(batch).logits for batch in prepared.data.eval_batches(rows)]
        return torch.cat(outputs), labels
    cache = open_cache(prepared, "val")
    built = cache.provide(cache.views)
    module.spent.count_build(built.seconds, {})  # only passes over training images are counted
    return stored_logits(cache), labels


def held_out_logits(prepared: Prepared) -> Float[Tensor, "N M K"] | None:
    """Return the teachers' validation logits; None unless all have some, in the cache."""
    plan = prepared.plan
    if not prepared.data.has_validation or any(teacher.options.head == "none" for teacher in plan.teachers):
        return None
    cache = RunCache(plan.request.settings, plan.teachers, prepared.data, prepared.accuracy, "val")
    if cache.missing():
        return None
    cache.check()
    return stored_logits(cache)


def open_cache(prepared: Prepared, split: SplitName) -> RunCache:
    """Return the run's stores for a split, checked, and registered as used by the run."""
    plan, request = prepared.plan, prepared.plan.request
    cache = RunCache(request.settings, plan.teachers, prepared.data, prepared.accuracy, split)
    with rank_zero_first():
        if is_rank_zero():
            cache.note_use(request.folder.path, request.command)
            cache.check()
        else:
            cache.trusted.update(cache.complete())
    cache.refuse_full_disk(plan.hints)
    return cache


def stored_logits(cache: RunCache) -> Float[Tensor, "N M K"]:
    """Return the cached logits of a split without augmentation, in float32."""
    logits = [teacher.logits.open(0).whole().float() for teacher in cache.teachers]
    return torch.stack(logits, dim=1)


def run_doctor(ready: Ready, *, thoroughly: bool = False) -> Checkup:
    """Run the doctor on a ready run, write its report and print its warnings.

    Live teachers are examined only if ``thoroughly``.
    """
    settings, examined = ready.request.settings, {}
    if ready.cache is not None:
        examined = {name: facts.examination for name, facts in ready.cache.examined().items()}
    elif thoroughly:
        for selected in ready.teachers:
            examined[selected.name] = examination(settings, selected, selected.load(), ready.data)
    with_logits = {name: found for name, found in examined.items() if found is not None}
    found = check_up(ready.module, ready.data, with_logits, settings.expected_defects)
    write_record(ready.request.folder.doctor_file, found)
    print_warnings(found)
    return found
