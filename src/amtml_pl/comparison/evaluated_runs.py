"""Read the evaluations in the run folders of a comparison."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.recorded_run import Run
from amtml_pl.errors import UserError
from amtml_pl.runs.evaluation import Evaluation
from amtml_pl.system.console import counted
from amtml_pl.system.records import find_record

EVALUATE = "python -m amtml_pl.evaluate latency=false"


@dataclass(frozen=True)
class Evaluated:
    """The evaluations of a problem's groups with teachers, and sentences on what is missing.

    Attributes:
        groups: those with at least one evaluation that measured the teachers together.
    """

    groups: Sequence[tuple[Group, Sequence[Evaluation]]]
    notes: Sequence[str]


def evaluated(problem: Problem) -> Evaluated | None:
    """Return the evaluations of a problem; None if no run has teachers."""
    taught = [group for group in problem.groups if any(run.record.teachers for run in group.runs)]
    notes, missing = dict[str, None](), list[Run]()
    found = [(group, evaluations_of(group, notes, missing)) for group in taught]
    if missing:
        command = f"{EVALUATE} {shlex.quote(f'run={missing[0].folder}')}"
        count = f"{counted(len(missing), 'run')} {'has' if len(missing) == 1 else 'have'} no evaluation"
        notes[f"{count}. Command for the first one: {command}"] = None
    return Evaluated([each for each in found if each[1]], [*notes]) if taught else None


def evaluations_of(group: Group, notes: dict[str, None], missing: list[Run]) -> list[Evaluation]:
    """Return the evaluations of a group with mixtures of its teachers.

    Args:
        group: of runs with teachers.
        notes: reasons for what is left out are added here.
        missing: runs without a usable evaluation are added here.
    """
    found = []
    for run in group.runs:
        try:
            evaluation = evaluation_of(run)
        except UserError as error:
            notes[error.what] = None
            evaluation = None
        if evaluation is None:
            missing.append(run)
            continue
        absent = dict(evaluation.left_out)
        if evaluation.ensemble is not None:
            found.append(evaluation)
            absent = dict(evaluation.ensemble.left_out())
        notes |= {
            f"{group.name}: {name} left out: {why}": None for name, why in absent.items() if name != "latency"
        }
    return found


def evaluation_of(run: Run) -> Evaluation | None:
    """Return the evaluation of a run's selected epoch; None if missing.

    Raises:
        UserError: if the file cannot be read, or is of other images, another run or another epoch.
    """
    file = run.folder / "evaluate.json"
    found = find_record(Evaluation, file, fix=EVALUATE)
    if found is not None:
        own = run.record.dataset.digest, run.record.seed
        if (found.dataset.digest, found.seed) != own or found.split != "test" or not found.dataset.own:
            raise UserError(f"{file} is not of this run's test images.", fix=EVALUATE)
        if found.checkpoint not in ("best", run.record.selection):
            raise UserError(f"{file} is not of this run's selected epoch.", fix=EVALUATE)
    return found
