"""Tabulate how the teachers' weights depend on image and class, and the gain."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from amtml_pl.comparison.evaluated_runs import Evaluated
from amtml_pl.comparison.mixture_table import MEASURES, READS_LABELS, gains_over, mean, value_of
from amtml_pl.comparison.tables import ShownTable
from amtml_pl.runs.evaluation import Adaptivity, Ensemble, WeightSpread

ALL = "all classes"
MOST_CLASSES = 20  # with a row each in a table
LEGEND = (
    "The weights of the run's own weighting for each test image, at the selected epoch. Effective teachers "
    "are the exponential of the mean entropy of the weights: 1 if one teacher has all weight, the number of "
    "teachers if all weights are equal. The deviation is the root mean square distance of the weights from "
    "the teachers' mean weights. Between classes is the share of its square that the class explains; the "
    "rest is between the images of a class. The weight of right teachers is measured on the images with "
    "right and wrong teachers. What is gained is compared with the mean weights for all images: more weight "
    "for the right teachers, a higher accuracy of the soft targets, a lower NLL. No student is measured. ± "
    "is the standard deviation over the n seeds."
)


@dataclass(frozen=True)
class Adapted:
    """A group's weights per image, as each of its evaluations measured them.

    Attributes:
        ensembles: those with such weights, at least one.
        measured: the adaptivity of each.
    """

    name: str
    ensembles: Sequence[Ensemble]
    measured: Sequence[Adaptivity]

    @property
    def varies(self) -> bool:
        """Return True if the weights differ between images in any run."""
        return any(each.between_classes is not None for each in self.measured)

    @property
    def reads_labels(self) -> bool:
        """Return True if the weights of an image depend on its label."""
        return any(each.mixtures["own"].reads_labels for each in self.ensembles)


def adapted_groups(found: Evaluated) -> list[Adapted]:
    """Return the groups whose weights per image were measured."""
    groups = []
    for group, evaluations in found.groups:
        pairs = [
            (each.ensemble, each.ensemble.adaptivity)
            for each in evaluations
            if each.ensemble is not None and each.ensemble.adaptivity is not None
        ]
        if pairs:
            groups.append(Adapted(group.name, *map(list, zip(*pairs, strict=True))))
    return groups


def adaptivity_table(groups: Sequence[Adapted]) -> ShownTable | None:
    """Return a table with a row for each group whose weights vary; None without such."""
    rows = [row(group) for group in groups if group.varies]
    return ShownTable.of(rows, ("n",)) if rows else None


def constant(groups: Sequence[Adapted]) -> str:
    """Return a sentence on the groups with constant weights; empty without such."""
    names = [group.name for group in groups if not group.varies]
    return f"The weights are equal for all images: {', '.join(names)}." if names else ""


def row(group: Adapted) -> dict[str, str]:
    """Return a group's cells by the names of the columns."""
    n, measured = len(group.measured), group.measured
    pairs = [(each.right, each.right_constant) for each in measured]
    gained = {
        f"{MEASURES[measure]} gained": gains_over(
            [value_of(each, "own_mean", measure) for each in group.ensembles],
            [value_of(each, "own", measure) for each in group.ensembles],
            measure,
        )
        for measure in MEASURES
    }
    return {
        "group": group.name + (READS_LABELS if group.reads_labels else ""),
        "n": str(n),
        "effective teachers": mean([math.exp(each.entropy) for each in measured], n),
        "deviation": mean([each.deviation for each in measured], n),
        "between classes": mean([each.between_classes for each in measured], n),
        "weight of right teachers": mean([each.right for each in measured], n),
        "weight gained": mean([None if a is None or b is None else a - b for a, b in pairs], n, sign="+"),
        **{name: mean(values, n, sign="+") for name, values in gained.items()},
    }


def class_tables(groups: Sequence[Adapted]) -> list[ShownTable]:
    """Return a table by class for each group that varies with few classes."""
    tables = []
    for group in groups:
        if group.varies and len(group.measured[0].classes) <= MOST_CLASSES:
            by_class = spreads_of(group)
            rows = [
                {"class": name, **{teacher: spread_text(spread) for teacher, spread in own.items()}}
                for name, own in by_class.items()
            ]
            tables.append(ShownTable.of(rows, (), group.name))
    return tables


def spreads_of(group: Adapted) -> dict[str, dict[str, WeightSpread]]:
    """Return the weights by class and teacher, as means over the seeds."""
    first = group.measured[0]
    places = {ALL: [each.teachers for each in group.measured]}
    places |= {
        name: [each.classes[name] for each in group.measured if name in each.classes]
        for name in first.classes
    }
    return {
        place: {
            teacher: mean_spread([each[teacher] for each in seeds if teacher in each])
            for teacher in first.teachers
        }
        for place, seeds in places.items()
    }


def mean_spread(spreads: Sequence[WeightSpread]) -> WeightSpread:
    """Return the mean of each number of some spreads."""
    names = WeightSpread.model_fields
    return WeightSpread(**{name: statistics.fmean(getattr(each, name) for each in spreads) for name in names})


def spread_text(spread: WeightSpread) -> str:
    """Return ``0.61 (0.20 to 0.95)``: mean, 10 % and 90 % quantile."""
    return f"{spread.mean:.2f} ({spread.p10:.2f} to {spread.p90:.2f})"
