"""What the teachers give a run before and while it trains: outputs, classifiers, and what judges them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from amtml_pl.data.module import PackedDataModule
from amtml_pl.distill.module import StudentModule
from amtml_pl.errors import UserError
from amtml_pl.models.classifier_head import Head
from amtml_pl.models.hint import Reading
from amtml_pl.models.layout import set_execution
from amtml_pl.runs.record import TeacherFacts
from amtml_pl.system.collectives import leader_first
from amtml_pl.system.ranks import leads
from amtml_pl.teachers.cache.catalogue import Examination
from amtml_pl.teachers.cache.serve import CachedTeachers
from amtml_pl.teachers.live import LiveTeachers
from amtml_pl.teachers.selected import SelectedTeacher
from amtml_pl.training.teacher_cache import RunCache, examination
from amtml_pl.types import Shape


class Provision:
    """The teachers of one run, once all of them have their weights.

    Args:
        config: the checked configuration.
        teachers: the selected ones.
        data: the run's splits and views.
        module: whose teacher source is connected, and whose weighting judges.
        accuracy: of each teacher by split.
        user: the run's folder and command, of which the stores take note.
    """

    def __init__(
        self,
        config: DictConfig,
        teachers: Sequence[SelectedTeacher],
        data: PackedDataModule,
        module: StudentModule,
        accuracy: Mapping[str, Mapping[str, float]],
        user: tuple[Path, str],
    ) -> None:
        self.config, self.teachers, self.data, self.module = config, teachers, data, module
        self.accuracy, self.user = accuracy, user
        self.cache: RunCache | None = None
        if isinstance(module.teacher_source, CachedTeachers):
            self.cache = RunCache(config, teachers, data, accuracy)

    def provide(self, hints: Mapping[str, Shape]) -> dict[str, TeacherFacts]:
        """Gives live teachers their weights, or a cached run the outputs that its first epoch needs.

        Then the teachers are judged, and their classifiers cut out, where a part of the method asks for it.

        Args:
            hints: ``(C, H, W)`` of each hint by flat name.

        Returns:
            What a record says of each teacher.
        """
        facts = self.connect_live() if self.cache is None else self.connect(self.cache, hints)
        self.provide_heads()
        accuracy = {name: by_split["val"] for name, by_split in self.accuracy.items()}
        self.module.judge_teachers(accuracy, self.held_out_outputs)
        return facts

    def connect_live(self) -> dict[str, TeacherFacts]:
        """Gives the networks their weights, and the layout that they have for a cache."""
        source = self.module.teacher_source
        live = source.teachers if isinstance(source, LiveTeachers) else ()
        layout = self.config.cache  # so that both give the same numbers to the bit
        for selected, teacher in zip(self.teachers, live, strict=True):
            selected.load_weights(teacher)
            set_execution(
                teacher.network.network, channels_last=layout.channels_last, compiled=layout.compile
            )
        return {s.name: s.facts(teacher) for s, teacher in zip(self.teachers, live, strict=True)}

    def connect(self, cache: RunCache, hints: Mapping[str, Shape]) -> dict[str, TeacherFacts]:
        """Connects the teacher source with what is stored, once the first view is."""
        self.take(cache)
        cache.refuse_full_disk(hints)
        self.provide_view(self.data.train_view(0))
        source = self.module.teacher_source
        if isinstance(source, CachedTeachers):
            source.connect(cache.teachers, cache.views)
        self.data.before_epoch = self.provide_view
        return cache.facts()

    def provide_view(self, view: int) -> None:
        """Builds what a cached run misses of a view, and lets the loader read it ahead of the steps."""
        source = self.module.teacher_source
        if self.cache is not None and isinstance(source, CachedTeachers):
            self.refuse_unprepared(self.cache, view)
            built = self.cache.provide([view])
            self.module.spent.count_build(built.seconds, built.teacher_passes)
            self.data.read_teachers = source.read if source.read_in_loader else None

    def provide_heads(self) -> None:
        """Cuts the classifiers that a term runs out of the teachers, one teacher in memory at a time."""
        wanted = {tuple(name.split("/", 1)) for name in self.module.head_names()}
        heads: dict[str, Head] = {}
        for selected in self.teachers:
            if hints := [hint for name, hint in wanted if name == selected.name]:
                loaded = selected.load()
                for hint in hints:
                    head = Head(loaded.network.network, Reading.of(hint).tap, loaded.class_map)
                    heads[f"{selected.name}/{hint}"] = head
        self.module.take_heads(heads)

    def held_out_outputs(self) -> tuple[Tensor, Tensor]:
        """The teachers' logits for the validation split, ``(N, M, K)``, and its labels.

        They are kept as a cached run's outputs are, for live teachers too: those runs start as often.
        """
        rows = self.data.val_split()
        labels = rows.stored.labels[rows.rows]
        source = self.module.teacher_source
        if isinstance(source, LiveTeachers) and not all(
            selected.is_as_constructed(teacher)
            for selected, teacher in zip(self.teachers, source.teachers, strict=True)
        ):  # what a random constructor has given must not be kept
            outputs = [source(batch).logits for batch in self.data.eval_batches(rows)]
            return torch.cat(outputs), labels
        cache = RunCache(held_out_config(self.config), self.teachers, self.data, self.accuracy, "val")
        self.take(cache)
        cache.refuse_full_disk({})
        self.refuse_unprepared(cache, 0)
        built = cache.provide(cache.views)
        self.module.spent.count_build(built.seconds, {})  # passes are counted of training images
        logits = [teacher.logits.open(0).whole().float() for teacher in cache.teachers]
        return torch.stack(logits, dim=1), labels

    def held_out_logits(self) -> Tensor | None:
        """`held_out_outputs` without labels, where all of it has been computed before; None otherwise."""
        cache = RunCache(held_out_config(self.config), self.teachers, self.data, self.accuracy, "val")
        if cache.missing():
            return None
        cache.check()
        return torch.stack([teacher.logits.open(0).whole().float() for teacher in cache.teachers], dim=1)

    def take(self, cache: RunCache) -> None:
        """Leaves word that the run uses these stores, and checks them, once for all processes of the run."""
        with leader_first():
            if leads():
                cache.note_use(*self.user)
                cache.check()
        cache.trust_what_is_there()

    def refuse_unprepared(self, cache: RunCache, view: int) -> None:
        """Refuses what would have to be computed where nothing is to be.

        Raises:
            UserError: if the view is missing and ``prepare`` is false.
        """
        if not self.config.prepare and view in cache.missing():
            raise UserError(
                f"prepare=false, and view {view} of the teachers' outputs for the {cache.split.name} "
                f"split lacks in {cache.root}.",
                fix="prepare=true, or python -m amtml_pl.cache action=build with these overrides",
            )

    def examinations(self, *, thoroughly: bool) -> dict[str, Examination]:
        """What is known of each teacher from images that it was not trained on.

        Args:
            thoroughly: whether live teachers, which no cache has examined, are examined now.
        """
        if self.cache is not None:
            return self.cache.examinations()
        if not thoroughly:
            return {}
        look = partial(examination, self.config, data=self.data)
        return {selected.name: look(selected, teacher=selected.load()) for selected in self.teachers}


def held_out_config(config: DictConfig) -> DictConfig:
    """How outputs for the validation split are kept: exactly as live teachers give them, where they do."""
    if config.teacher_source == "cached":
        return config
    exact = deepcopy(config)
    exact.cache.logits = exact.cache.precision = "float32"
    return exact
