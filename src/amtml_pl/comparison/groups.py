"""Runs that are compared with one another, and those of them that differ in nothing but the seed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from amtml_pl.comparison.estimates import Estimate, PairedDifference
from amtml_pl.comparison.found_runs import Run, flat
from amtml_pl.overrides import without_common

LONGEST_FACT = 48  # in a group's name; a longer one is read in config.yaml
SMALLER_IS_BETTER = ("loss", "nll", "ece", "brier", "error", "kl")


@dataclass
class Group:
    """Runs that differ in nothing but the seed.

    Attributes:
        runs: at least one, by seed.
        name: what tells them from the other groups of their problem.
        unequal: in what their budget differs from the baseline's, or from that of most groups.
        against_baseline: their difference from the baseline; None where no baseline is named.
        is_baseline: whether they are the baseline themselves.
    """

    runs: Sequence[Run]
    name: str = ""
    unequal: tuple[str, ...] = ()
    against_baseline: PairedDifference | None = None
    is_baseline: bool = False

    @property
    def first(self) -> Run:
        """One of them, for what all have in common."""
        return self.runs[0]

    def by_seed(self, metric: str) -> dict[int, float]:
        """A measured number of each run that has it, by seed."""
        return {run.seed: run.metrics[metric] for run in self.runs if metric in run.metrics}

    def estimate(self, metric: str) -> Estimate | None:
        """Of a measured number; None where no run has it."""
        values = list(self.by_seed(metric).values())
        return Estimate.of(values) if values else None


@dataclass
class Problem:
    """Groups that may be compared: of the same pixels, with the same student.

    Attributes:
        dataset: the data set's name.
        digest: of its pixels.
        student: the student's facts, by name.
        groups: best first.
        common: the overrides that all groups have, the experiment included.
        baseline: the one that all are compared with; None where none is named, or this problem lacks it.
    """

    dataset: str
    digest: str
    student: Mapping[str, Any]
    groups: list[Group]
    common: tuple[str, ...] = ()
    baseline: Group | None = field(default=None)

    @property
    def title(self) -> str:
        """``digits (3f786850), CifarResNet with 19,954 parameters``."""
        network = str(self.student.get("network") or "").rpartition(".")[2]
        size = self.student.get("parameters")
        told = f"{network} with {size:,} parameters" if isinstance(size, int) else network
        return f"{self.dataset} ({self.digest[:8]})" + (f", {told}" if network else "")

    @property
    def runs(self) -> list[Run]:
        """Of all groups."""
        return [run for group in self.groups for run in group.runs]


def problems_of(runs: Iterable[Run], metric: str) -> list[Problem]:
    """Separates runs that must not be compared and groups the others by everything but the seed.

    Args:
        runs: each with the metric.
        metric: what the groups of a problem are ranked by.
    """
    studies: dict[tuple[str, str], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        student = json.dumps(run.student, sort_keys=True, default=str)
        studies[run.digest, student][run.study].append(run)
    problems = []
    for (digest, _), by_study in studies.items():
        groups = [Group(sorted(group, key=lambda run: run.seed)) for group in by_study.values()]
        sign = 1 if is_smaller_better(metric) else -1
        groups.sort(key=lambda group: sign * Estimate.of(list(group.by_seed(metric).values())).mean)
        first = groups[0].first
        problem = Problem(first.dataset, digest, first.student, groups)
        name_groups(problem)
        note_budgets(problem)
        problems.append(problem)
    return sorted(problems, key=lambda problem: (problem.dataset, problem.title))


def is_smaller_better(metric: str) -> bool:
    """Whether a metric, by its name, is something to have little of."""
    return metric.rpartition("/")[2].removesuffix("_last") in SMALLER_IS_BETTER


def name_groups(problem: Problem) -> None:
    """Names each group by what tells it from the others: experiment, method, overrides, then its facts."""
    groups = problem.groups
    words = [identity(group.first) for group in groups]
    methods = {group.first.experiment for group in groups if group.first.method}
    for group, own in zip(groups, words, strict=True):
        kept = without_common(own, words) if len(groups) > 1 else own
        if group.first.method and len(methods) == 1:
            kept = [word for word in kept if not word.startswith("experiment=")]
        group.name = " ".join(map(short, kept)) or group.first.method or group.first.experiment or "unnamed"
    problem.common = tuple(word for word in words[0] if all(word in each for each in words))
    alike = defaultdict(list)
    for group in groups:
        alike[group.name].append(group)
    for same in alike.values():
        if len(same) > 1:
            tell_apart(same)


def identity(run: Run) -> list[str]:
    """What was typed to say what was studied, the experiment and the method first."""
    first = [f"{key}={value}" for key, value in (("experiment", run.experiment), ("method", run.method))]
    return [*(word for word in first if not word.endswith("=")), *run.settings]


def short(word: str) -> str:
    """A method or an experiment without the key."""
    return word.partition("=")[2] if word.startswith(("method=", "experiment=")) else word


def tell_apart(groups: Sequence[Group]) -> None:
    """Adds to the names of groups that were typed alike what is unlike in their records or configurations."""
    facts = [dict(group.first.facts) for group in groups]
    found = told_by(facts)
    if len({tuple(own) for own in found}) < len(groups):
        configured = told_by([configuration(group.first.folder) for group in groups], absent="absent")
        found = [own + more for own, more in zip(found, configured, strict=True)]
    for group, words in zip(groups, found, strict=True):
        own = [word for word in words if len(word) <= LONGEST_FACT]
        group.name += f" ({', '.join(own[:3])})" if own else ""
    alike = Counter(group.name for group in groups)
    numbered = Counter[str]()
    for group in groups:
        if alike[name := group.name] > 1:
            numbered[name] += 1
            group.name = f"{name} #{numbered[name]}"


def told_by(facts: Sequence[Mapping[str, str]], absent: str | None = None) -> list[list[str]]:
    """Each one's facts that not all share.

    Args:
        facts: of each, by a dotted name.
        absent: what stands for a fact that one lacks; by default, as of an older record, it tells nothing.
    """
    names = dict.fromkeys(name for own in facts for name in own)
    unlike = [name for name in names if len({own.get(name, absent) for own in facts} - {None}) > 1]
    return [[f"{name.rpartition('.')[2]} {own[name]}" for name in unlike if name in own] for own in facts]


def configuration(folder: Path) -> dict[str, str]:
    """A run's configuration, flat, without its seed; empty where it cannot be read."""
    try:
        found = yaml.load((folder / "config.yaml").read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return {k: v for k, v in flat(found) if k != "seed"} if isinstance(found, dict) else {}


def note_budgets(problem: Problem) -> None:
    """Notes in every group in what its budget differs from the baseline's, or without one from the usual.

    Where no value of a field is more usual than another, it is named in all groups. Fields that an older
    record lacks are passed over.
    """
    budgets = [budget_of(group) for group in problem.groups]
    expected = budget_of(problem.baseline) if problem.baseline else {}
    for name in dict.fromkeys(name for budget in budgets for name in budget):
        if name not in expected and (value := usual([b[name] for b in budgets if name in b])) is not None:
            expected[name] = value
    for group, own in zip(problem.groups, budgets, strict=True):
        group.unequal = tuple(
            f"{name} {'/'.join(values)}"
            for name, values in own.items()
            if values != expected.get(name) or len(values) > 1
        )


def usual(values: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The one that most have; None where others are as frequent."""
    first, *others = Counter(values).most_common(2)
    return None if others and others[0][1] == first[1] else first[0]


def budget_of(group: Group) -> dict[str, tuple[str, ...]]:
    """What the runs of a group have in every field of their budget; the initial weights by seed."""
    fields: dict[str, set[str]] = defaultdict(set)
    for run in group.runs:
        for name, value in run.budget.items():
            own = f"{name} of seed {run.seed}" if name == "student_initial" else name
            fields[own].add(str(value))
    return {name: tuple(sorted(values)) for name, values in fields.items()}
