"""The figure of a metric over a swept setting: temperature, coefficient or teachers."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.figure import (
    Frame,
    PageFigure,
    Trace,
    Variant,
    axis,
    colour,
    escape_html,
    short_label,
)
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.naming import make_distinct, unlike_facts
from amtml_pl.comparison.recorded_run import Run
from amtml_pl.config.overrides import key_of
from amtml_pl.system.console import counted

Family = dict[float | tuple[str, ...], Group]  # by the value of the swept setting

TEACHERS = "number of teachers"


@dataclass(frozen=True)
class SweptSetting:
    """A setting that sweeps vary.

    Attributes:
        label: the title of its axis.
        override: the beginning of its key on the command line.
        fact: its name among a run's facts; empty if it is not one.
        value_of: returns a run's value: a number, or the names of the teachers.
    """

    label: str
    override: str
    fact: str
    value_of: Callable[[Run], float | tuple[str, ...]]

    def words_of(self, run: Run) -> list[str]:
        """Return the words that describe a run, without this setting and those that are facts."""
        left_out = {self.override, "temperature", "coef"}
        others = (word for word in run.settings if key_of(word).partition(".")[0] not in left_out)
        return [run.method or run.experiment or "unnamed", *others]

    def facts_of(self, run: Run) -> dict[str, str]:
        """Return the experiment and the facts of a run, without this setting."""
        facts = {"experiment": run.experiment, **run.facts}
        return {name: fact for name, fact in facts.items() if name != self.fact}


def metric_by_swept_setting(problem: Problem, metric: str) -> PageFigure:
    """Return a figure with a line for groups that differ in one setting only."""
    variants, notes = [], dict[str, None]()
    for setting in swept_settings(problem):
        families, ambiguous = families_of(problem.groups, setting)
        found = {name: points_of(own, metric) for name, own in families.items()}
        lines = {name: points for name, (points, _) in found.items() if len(points) > 1}
        notes |= {f" {name}: {each}": None for name, (_, own) in found.items() for each in own}
        if lines:
            frame = Frame.of([estimate for points in lines.values() for estimate in points.values()])
            variants.append(Variant(setting.label, *drawn(lines, setting, metric, frame)))
            notes[frame.note] = None
        for name in ambiguous:
            notes[f" The line {name} is left out, because its groups differ only in config.yaml."] = None
    averaged = ""
    if any(variant.label == TEACHERS for variant in variants):
        averaged = "For each seed that they share, selections with the same number of teachers are averaged."
    return PageFigure(
        "sweep",
        f"{metric} by swept setting",
        f"Mean {metric} with its 95 % interval over the seeds. Groups of a line differ only in this setting. "
        f"{averaged}{''.join(notes)}",
        variants,
        choice="swept setting",
    )


def drawn(
    lines: Mapping[str, Mapping[float, Estimate]], setting: SweptSetting, metric: str, frame: Frame
) -> tuple[list[Trace], dict[str, Any]]:
    """Return the traces and the layout of lines over the values of a setting."""
    traces: list[Trace] = [
        {
            "type": "scatter", "mode": "lines+markers", "name": short_label(name),
            "x": [f"{x:g}" for x in points], "y": [each.mean for each in points.values()],
            "error_y": {"type": "data", "array": [e.half_width or 0 for e in points.values()], "width": 4},
            "line": {"color": colour(number)}, "text": [f"{each} (n = {each.n})" for each in points.values()],
            "hovertemplate": escape_html(f"{name}, {setting.label}") + " %{x}: %{text}<extra></extra>",
        }
        for number, (name, points) in enumerate(sorted(lines.items()))
    ]  # fmt: skip
    values = sorted({x for points in lines.values() for x in points})
    layout = {
        "xaxis": axis(setting.label, type="category", categoryarray=[f"{x:g}" for x in values]),
        "yaxis": axis(metric, range=frame.range),
        "showlegend": True,
    }
    return traces, layout


def swept_settings(problem: Problem) -> Iterator[SweptSetting]:
    """Yield the settings that have an axis."""
    yield SweptSetting("temperature", "temperature", "temperature", lambda run: run.record.temperature)
    # The order in which teachers were typed does not matter here.
    yield SweptSetting(TEACHERS, "teacher", "", lambda run: tuple(sorted(run.record.teachers)))
    for term in sorted({term for run in problem.runs for term in run.record.loss}):
        value_of = partial(coefficient, term=term)
        yield SweptSetting(f"coefficient of {term}", "coef", f"loss.{term}", value_of)


def coefficient(run: Run, term: str) -> float:
    """Return the coefficient of a loss term; 0 without the term."""
    return run.record.loss.get(term, 0.0)


def families_of(groups: Sequence[Group], setting: SweptSetting) -> tuple[dict[str, Family], list[str]]:
    """Return by name the groups that differ only in a setting.

    Returns:
        The families, and the names of those that are left out. These have two groups of one value, as after
        an edit of a YAML file between two sweeps.
    """
    alike: dict[tuple[object, ...], list[Group]] = defaultdict(list)
    for group in groups:
        key = *sorted(setting.words_of(group.first)), *sorted(setting.facts_of(group.first).items())
        alike[key].append(group)
    families = [own for own in alike.values() if len({setting.value_of(group.first) for group in own}) > 1]
    firsts = [own[0].first for own in families]
    names = make_distinct(
        [" ".join(setting.words_of(run)) for run in firsts],
        lambda same: unlike_facts([setting.facts_of(firsts[number]) for number in same]),
    )
    found, ambiguous = {}, []
    for name, own in zip(names, families, strict=True):
        family = {setting.value_of(group.first): group for group in own}
        if len(family) == len(own):
            found[name] = family
        else:
            ambiguous.append(name)
    return found, ambiguous


def points_of(family: Family, metric: str) -> tuple[dict[float, Estimate], list[str]]:
    """Return an estimate per value or number of teachers, and notes on seeds left out.

    Selections of as many teachers are averaged for each seed, over the seeds that all of them have: the mean
    over unlike seeds would differ by the seeds too.
    """
    by_value: dict[float, list[dict[int, float]]] = defaultdict(list)
    for value, group in family.items():
        by_value[len(value) if isinstance(value, tuple) else value].append(group.by_seed(metric))
    points, notes = {}, []
    for value, selections in sorted(by_value.items()):
        every, shared = set().union(*selections), set(selections[0]).intersection(*selections)
        if shared:
            means = [statistics.fmean(each[seed] for each in selections) for seed in sorted(shared)]
            points[value] = Estimate.of(means)
        if len(shared) < len(every):
            whose = f"The selections of {counted(int(value), 'teacher')}"
            notes.append(f"{whose} share {len(shared)} of {counted(len(every), 'seed')}.")
    return points, notes
