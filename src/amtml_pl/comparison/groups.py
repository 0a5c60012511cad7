"""Group runs that differ only in the seed; separate those of other problems."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from amtml_pl.comparison.estimates import Estimate, PairedDifference
from amtml_pl.comparison.naming import (
    common_words,
    common_words_of_teachers,
    make_distinct,
    names_of,
    unlike_facts,
)
from amtml_pl.comparison.recorded_run import Run, flat_texts
from amtml_pl.errors import UserError
from amtml_pl.runs.record import DatasetFacts, NetworkFacts

SMALLER_IS_BETTER = ("loss", "nll", "ece", "brier", "error", "kl")


@dataclass
class Group:
    """Runs that differ only in the seed.

    Attributes:
        runs: at least one, by seed.
        name: unique among the groups of its problem.
        unequal: differences of its budget from the baseline's, or from that of most groups.
        against_baseline: None if no baseline is named.
    """

    runs: Sequence[Run]
    name: str = ""
    unequal: tuple[str, ...] = ()
    against_baseline: PairedDifference | None = None
    is_baseline: bool = False

    @property
    def first(self) -> Run:
        """Return the first run, for everything that all have in common."""
        return self.runs[0]

    def by_seed(self, metric: str) -> dict[int, float]:
        """Return a metric of each run that has it, by seed."""
        records = [run.record for run in self.runs]
        return {record.seed: record.metrics[metric] for record in records if metric in record.metrics}

    def estimate(self, metric: str) -> Estimate | None:
        """Return the estimate of a metric; None if no run has it."""
        values = self.by_seed(metric).values()
        return Estimate.of([*values]) if values else None


@dataclass
class Problem:
    """Comparable groups: of the same pixels, with the same student.

    Attributes:
        groups: best first.
        title: unique among the problems.
        common: the overrides that all groups have, the experiment included.
        common_of_teachers: the other overrides of teachers that all groups with teachers have.
        baseline: the group that all are compared with; None if none is named, or not in this problem.
    """

    groups: list[Group]
    title: str = ""
    common: tuple[str, ...] = ()
    common_of_teachers: tuple[str, ...] = ()
    baseline: Group | None = None

    @property
    def dataset(self) -> DatasetFacts:
        """Return the data set of the first run."""
        return self.groups[0].first.record.dataset

    @property
    def student(self) -> NetworkFacts:
        """Return the student of all runs."""
        return self.groups[0].first.record.student

    @property
    def runs(self) -> list[Run]:
        """Return the runs of all groups."""
        return [run for group in self.groups for run in group.runs]


def problems_of(runs: Iterable[Run], metric: str) -> list[Problem]:
    """Return runs as problems, and grouped in each by everything except the seed.

    Args:
        runs: each with the metric.
        metric: ranks the groups of a problem.
    """
    studies: dict[tuple[str, NetworkFacts], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        studies[run.record.dataset.digest, run.record.student][run.record.study].append(run)
    problems = []
    for by_study in studies.values():
        groups = [Group(sorted(group, key=lambda run: run.record.seed)) for group in by_study.values()]
        sign = 1 if is_smaller_better(metric) else -1
        groups.sort(key=lambda group: sign * Estimate.of(list(group.by_seed(metric).values())).mean)
        firsts = [group.first for group in groups]
        of_teachers = common_words_of_teachers(firsts)
        problem = Problem(groups, common=common_words(firsts), common_of_teachers=of_teachers)
        for group, name in zip(groups, names_of(firsts), strict=True):
            group.name = name
        note_budgets(problem)
        problems.append(problem)
    students = [dict(flat_texts(problem.student.model_dump())) for problem in problems]
    titles = make_distinct(
        [title_of(problem) for problem in problems],
        lambda alike: unlike_facts([students[number] for number in alike], absent="absent"),
    )
    for problem, title in zip(problems, titles, strict=True):
        problem.title = title
    return sorted(problems, key=lambda problem: (problem.dataset.name, problem.title))


def rename(problems: Sequence[Problem], names: Mapping[str, str]) -> None:
    """Replace names of groups, or words in them, such as ``avg`` by ``Average``.

    Raises:
        UserError: if a word is in no name, or two groups of a problem get the same name.
    """
    unused, known = {*names}, ", ".join(group.name for problem in problems for group in problem.groups)
    for problem in problems:
        for group in problem.groups:
            whole, words = group.name, group.name.split(" ")
            unused -= {whole, *words}
            group.name = names.get(whole) or " ".join(names.get(word, word) for word in words)
        twice = [name for name, n in Counter(group.name for group in problem.groups).items() if n > 1]
        if twice:
            raise UserError(
                f"names= gives the name {twice[0]!r} to several groups.", fix="use different names"
            )
    if unused:
        raise UserError(
            f"names= has a word that is in no group's name (got {min(unused)!r}, names are {known:.600}).",
            fix="pass 'names={WORD: NEW_WORD}'",
        )


def is_smaller_better(metric: str) -> bool:
    """Return True if smaller values of a metric are better, by its name."""
    return metric.rpartition("/")[2].removesuffix("_last") in SMALLER_IS_BETTER


def title_of(problem: Problem) -> str:
    """Return a title: ``digits (3f786850), CifarResNet with 19,954 parameters``."""
    network = (problem.student.network or "").rpartition(".")[2]
    student = f", {network} with {problem.student.parameters:,} parameters" if network else ""
    return f"{problem.dataset.name} ({problem.dataset.digest[:8]}){student}"


def note_budgets(problem: Problem) -> None:
    """Set every group's differences in budget from the baseline, or else from most groups.

    If no value of a field is more frequent than another, it is named in all groups.
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
    """Return the most frequent value; None if others are as frequent."""
    first, *others = Counter(values).most_common(2)
    return None if others and others[0][1] == first[1] else first[0]


def budget_of(group: Group) -> dict[str, tuple[str, ...]]:
    """Return every field of the budgets of a group's runs; the initial weights by seed."""
    fields: dict[str, set[str]] = defaultdict(set)
    for run in group.runs:
        for name, value in run.record.budget.items():
            own = f"{name} of seed {run.record.seed}" if name == "student_initial" else name
            fields[own].add(str(value))
    return {name: tuple(sorted(values)) for name, values in fields.items()}
