"""Frozen stages of a run: Plan, Prepared, Ready, Fitted.

`amtml_pl.training` makes each from the one before: `plan.plan`, `pipeline.prepare`, `connect.connect` and
`fit.fit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.source import DatasetSource
from amtml_pl.distill.module import StudentModule
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import Execution, TeacherFacts, Timing
from amtml_pl.teachers.cache.build import BuildStats
from amtml_pl.teachers.live import Teacher
from amtml_pl.training.extension import Origin
from amtml_pl.training.plan_table import PlanStep
from amtml_pl.training.run_cache import Accuracy, RunCache
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.settings import Settings
from amtml_pl.types import Shape


@dataclass(frozen=True)
class RunRequest:
    """Configuration, folder and command of a run.

    Attributes:
        settings: the resolved configuration.
        folder: the run folder.
        experiment: its name in the configuration; None without one.
        command: what a shell repeats the run with.
        choices: names of ``method`` and ``student``, where they are known.
    """

    settings: Settings
    folder: RunFolder
    experiment: str | None
    command: str
    choices: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Run whose parts fit together.

    Attributes:
        request: what the plan is for.
        source: reads the data set, if it is not packed yet.
        teachers: the M selected teachers, in order.
        live: their networks, maybe without weights yet; empty in a cached run.
        hints: ``(C, H, W)`` of each hint by flat name, after pooling.
        needs_held_out: True if the weighting reads the teachers' outputs on the validation split.
        recorded: the execution of the run that is resumed or extended; None for a new run.
        origin: the run that is extended; None for any other run.
        steps: the rows of the printed plan, in building order.
    """

    request: RunRequest
    source: DatasetSource
    teachers: tuple[SelectedTeacher, ...]
    live: tuple[Teacher, ...]
    hints: Mapping[str, Shape]
    needs_held_out: bool
    recorded: Execution | None
    origin: Origin | None
    steps: tuple[PlanStep, ...]


@dataclass(frozen=True)
class Prepared:
    """Packed images and trained teachers.

    Attributes:
        plan: the stage before.
        execution: of the student's step.
        data: batches without teacher outputs.
        accuracy: in [0, 1], by teacher and split; of weights from elsewhere on validation alone.
        features: cost of the features that classifiers were fitted on just now.
    """

    plan: Plan
    execution: Execution
    data: PackedDataModule
    accuracy: Accuracy
    features: BuildStats


@dataclass(frozen=True)
class Ready:
    """Module that can be fitted.

    Attributes:
        prepared: the stage before.
        module: student, terms and weighting, which is calibrated.
        data: batches, with teacher outputs if the loader reads them.
        cache: the stores of the training split; None with live teachers or none.
        facts: network and weights of each teacher, for the record.
    """

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
    """Measurements of a finished fit.

    Attributes:
        metrics: by flat name, as ``test/acc``; accuracies in [0, 1].
        timing: seconds of the fit, of the teachers and of the cache.
        epochs: the number of trained ones, fewer than planned after early stopping.
    """

    metrics: Mapping[str, float]
    timing: Timing
    epochs: int
