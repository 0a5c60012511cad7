"""Tabulate what the teachers' outputs could give, from the run folders' evaluations."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from amtml_pl.comparison.estimates import Estimate, of_seeds
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.recorded_run import Run
from amtml_pl.errors import UserError
from amtml_pl.runs.evaluation import MIXTURES, Ensemble, Evaluation
from amtml_pl.system.console import counted
from amtml_pl.system.records import find_record

EVALUATE = "python -m amtml_pl.evaluate latency=false"
READS_LABELS = " (reads labels)"
LEGEND = (
    "Mixtures of the teachers' outputs for the test images, without a student, beside the student of the "
    "selected epoch. The accuracy is that of the soft targets at the run's temperature. The negative "
    "log-likelihood (NLL, in nats) has temperature 1. Logits are mixed as they are, also if the run's loss "
    "standardises them (avg_lskd). One weight per teacher and the best single teacher are chosen on the "
    "validation images. Weights per image are those of the run's own weighting. The last two mixtures read "
    "the labels, so they show how much there was to win. Weightings with the mark (reads labels) read them, "
    "too. What is to win, and what was won, is the gain over equal weights. ± is the standard deviation over "
    "the n seeds."
)
COLUMNS = (
    "group",
    "n",
    "measure",
    "student",
    *MIXTURES.values(),
    "to win",
    "won per teacher",
    "won per image",
)
MEASURES = {"acc": "accuracy", "nll": "NLL"}


@dataclass(frozen=True)
class MixtureTable:
    """The mixtures of a problem's groups with teachers, and sentences on what is missing."""

    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def mixture_table(problem: Problem) -> MixtureTable | None:
    """Return the mixtures of a problem; None if no run has teachers."""
    taught = [group for group in problem.groups if any(run.record.teachers for run in group.runs)]
    notes, missing = dict[str, None](), list[Run]()
    found = [(group, evaluations_of(group, notes, missing)) for group in taught]
    rows = [row(group, own, measure) for group, own in found if own for measure in MEASURES]
    if missing:
        command = f"{EVALUATE} {shlex.quote(f'run={missing[0].folder}')}"
        count = f"{counted(len(missing), 'run')} {'has' if len(missing) == 1 else 'have'} no evaluation"
        notes[f"{count}. Command for the first one: {command}"] = None
    return MixtureTable(rows, [*notes]) if taught else None


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
            absent = {MIXTURES[name]: why for name, why in evaluation.ensemble.absent.items()}
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


def row(group: Group, found: Sequence[Evaluation], measure: str) -> list[str]:
    """Return a group's values of a measure, ``acc`` or ``nll``."""
    n, mixtures = len(found), [each.ensemble for each in found if each.ensemble is not None]
    values = {name: [value_of(each, name, measure) for each in mixtures] for name in MIXTURES}
    cells = {name: mean(own, n) for name, own in values.items()}
    oracle = "any_right" if measure == "acc" else "likeliest"
    won = (gains_over(values["uniform"], values[name], measure) for name in (oracle, "per_teacher", "own"))
    student = mean([each.metric("", measure) for each in found], n)
    gains = [mean(gain, n, sign="+") for gain in won]
    if any(each.mixtures["own"].reads_labels for each in mixtures if "own" in each.mixtures):
        cells["own"] += READS_LABELS
        gains[-1] += READS_LABELS
    return [group.name, str(n), MEASURES[measure], student, *cells.values(), *gains]


def value_of(ensemble: Ensemble, name: str, measure: str) -> float | None:
    """Return a measure of a mixture; None if it was not measured."""
    found = ensemble.mixtures.get(name)
    return None if found is None else found.acc if measure == "acc" else found.nll


def gains_over(
    uniform: Sequence[float | None], own: Sequence[float | None], measure: str
) -> list[float | None]:
    """Return how much better each value is than that of equal weights."""
    sign = 1 if measure == "acc" else -1
    pairs = zip(uniform, own, strict=True)
    return [None if u is None or value is None else sign * (value - u) for u, value in pairs]


def mean(values: Sequence[float | None], n: int, *, sign: str = "") -> str:
    """Return mean ± standard deviation, with the number of values if not n."""
    measured = [value for value in values if value is not None]
    if not measured:
        return ""
    text = str(Estimate.of(measured))
    return (
        f"{'' if text.startswith('-') else sign}{text}{of_seeds(len(measured)) if len(measured) < n else ''}"
    )
