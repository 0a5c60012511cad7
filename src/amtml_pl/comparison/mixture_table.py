"""Tabulate what the teachers' outputs could give, without a student."""

from __future__ import annotations

from collections.abc import Sequence

from amtml_pl.comparison.estimates import Estimate, of_seeds
from amtml_pl.comparison.evaluated_runs import Evaluated
from amtml_pl.comparison.groups import Group
from amtml_pl.comparison.tables import ShownTable
from amtml_pl.runs.evaluation import MIXTURES, Ensemble, Evaluation

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
SHOWN = [name for name in MIXTURES if name != "own_mean"]  # which the table of adaptivity compares
MEASURES = {"acc": "accuracy", "nll": "NLL"}
TO_WIN = {"acc": "any_right", "nll": "likeliest"}


def mixture_tables(found: Evaluated) -> list[ShownTable]:
    """Return the table of the accuracy and that of the NLL; none without an evaluation."""
    if not found.groups:
        return []
    tables = []
    for measure, name in MEASURES.items():
        rows = [row(group, own, measure) for group, own in found.groups]
        tables.append(ShownTable.of(rows, [*rows[0]][1:], name))
    return tables


def row(group: Group, found: Sequence[Evaluation], measure: str) -> dict[str, str]:
    """Return a group's cells by column, of the measure ``acc`` or ``nll``."""
    n, mixtures = len(found), [each.ensemble for each in found if each.ensemble is not None]
    values = {
        name: [value_of(each, name, measure) for each in mixtures]
        for name in SHOWN
        if name != "any_right" or measure == "acc"
    }
    cells = {MIXTURES[name]: mean(own, n) for name, own in values.items()}
    won = {"to win": TO_WIN[measure], "won per teacher": "per_teacher", "won per image": "own"}
    gains = {
        column: mean(gains_over(values["uniform"], values[name], measure), n, sign="+")
        for column, name in won.items()
    }
    if any(each.mixtures["own"].reads_labels for each in mixtures if "own" in each.mixtures):
        cells[MIXTURES["own"]] += READS_LABELS
        gains["won per image"] += READS_LABELS
    student = mean([each.metric("", measure) for each in found], n)
    return {"group": group.name, "n": str(n), "student": student, **gains, **cells}


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
