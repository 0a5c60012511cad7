"""Frozen stages of a run: Plan, Prepared, Ready, Fitted.

`amtml_pl.training` makes each from the one before: `plan.plan`, `pipeline.prepare`, `connect.connect` and
`fit.fit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.source import DatasetSource
from amtml_pl.distill.module import StudentModule
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import TeacherFacts, Timing
from amtml_pl.teachers.live import Teacher
from amtml_pl.teachers.selected import SelectedTeacher
from amtml_pl.training.plan_table import PlanStep
from amtml_pl.training.run_cache import Accuracy, RunCache
from amtml_pl.training.settings import Settings
from amtml_pl.types import Shape


@dataclass(frozen=True)
class RunRequest:
    """Configuration, folder and command of a run."""

    settings: Settings
    folder: RunFolder
    experiment: str | None
    command: str


@dataclass(frozen=True)
class Plan:
    """Run whose parts fit together; live teachers may lack their weights."""

    request: RunRequest
    source: DatasetSource
    teachers: tuple[SelectedTeacher, ...]
    live: tuple[Teacher, ...]
    hints: Mapping[str, Shape]
    needs_held_out: bool
    steps: tuple[PlanStep, ...]


@dataclass(frozen=True)
class Prepared:
    """Packed images, in batches without teacher outputs, and the accuracy of trained teachers."""

    plan: Plan
    data: PackedDataModule
    accuracy: Accuracy


@dataclass(frozen=True)
class Ready:
    """Module, batches with teacher outputs, and the facts of the teachers."""

    prepared: Prepared
    module: StudentModule
    data: PackedDataModule
    cache: RunCache | None
    facts: Mapping[str, TeacherFacts]

    @property
    def request(self) -> RunRequest:
        """Request that the run answers."""
        return self.prepared.plan.request

    @property
    def teachers(self) -> tuple[SelectedTeacher, ...]:
        """Selected teachers."""
        return self.prepared.plan.teachers


@dataclass(frozen=True)
class Fitted:
    """Measurements of a finished fit."""

    metrics: Mapping[str, float]
    timing: Timing
