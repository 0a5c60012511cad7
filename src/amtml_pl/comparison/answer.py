"""Answer in a few sentences which group is best, by how much, and how sure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations

from amtml_pl.comparison.estimates import PairedDifference, holm
from amtml_pl.comparison.groups import Group, Problem, is_smaller_better
from amtml_pl.system.console import counted

LEVEL = 0.05  # of all pairs of groups together, by Holm
NAMED = 4  # groups that a sentence names


def answer(problem: Problem, metric: str) -> str:
    """Return the best group, its distance from the others, and which tests separate them.

    Args:
        problem: with groups that have the metric, best first.
        metric: ranks and compares the groups.
    """
    return " ".join(sentences(problem, metric))


def sentences(problem: Problem, metric: str) -> Iterator[str]:
    """Yield the sentences of `answer`; the first one has the distance from the next group."""
    best, *others = problem.groups
    pairs = differences(problem.groups, metric)
    n = len(best.by_seed(metric))
    following = distance(others[0], pairs[0]) if others else ""
    yield f"{best.name} has the best mean {metric}: {best.estimate(metric)} (n = {n}){following}."
    yield from compared(problem, metric, pairs)
    if best.unequal:
        yield f"Its budget is unequal: {'; '.join(best.unequal)}."
    baseline = problem.baseline
    if baseline is not None and baseline not in problem.groups[:2]:
        paired = pairs[problem.groups.index(baseline) - 1]
        if paired.mean is not None:
            yield f"From the baseline {baseline.name} it differs by {paired.difference()}{tested(paired)}."


def distance(following: Group, paired: PairedDifference) -> str:
    """Return the distance from the next group; empty if they share no seed."""
    shown = paired.distance()
    return f", {shown} from the next one, {following.name}{tested(paired)}" if shown else ""


def tested(paired: PairedDifference) -> str:
    """Return the result of a test and the number of shared seeds in brackets."""
    test = "" if paired.holm is None else f"p by Holm {paired.corrected()}, "
    return f" ({test}n = {paired.n})"


def compared(problem: Problem, metric: str, pairs: Sequence[PairedDifference]) -> Iterator[str]:
    """Yield sentences on the tests of the best group against each other one."""
    sign = -1 if is_smaller_better(metric) else 1
    better: list[Group] = []
    worse: list[Group] = []
    alike: list[Group] = []
    untested: list[Group] = []
    for group, paired in zip(problem.groups[1:], pairs, strict=True):
        if paired.mean is None or paired.holm is None:
            untested.append(group)
        elif paired.holm >= LEVEL:
            alike.append(group)
        else:
            (better if sign * paired.mean > 0 else worse).append(group)
    if better:
        yield f"It is better than {names(better)} (paired t-tests, p by Holm below {LEVEL:g})."
    if worse:
        yield f"On the seeds that they share, it is worse than {names(worse)}."
    if alike:
        yield f"The tests do not separate it from {names(alike)}."
    if untested:
        yield f"No test compares it with {names(untested)}."


def differences(groups: Sequence[Group], metric: str) -> list[PairedDifference]:
    """Return the differences of the first group from each other one.

    The best group is chosen by the values that are tested, so that p is corrected for all pairs of groups.
    """
    values = [group.by_seed(metric) for group in groups]
    found = [PairedDifference.between(own, other) for own, other in combinations(values, 2)]
    corrected = iter(holm([paired.p for paired in found if paired.p is not None]))
    found = [paired if paired.p is None else replace(paired, holm=next(corrected)) for paired in found]
    return found[: len(groups) - 1]


def names(groups: Sequence[Group]) -> str:
    """Return the first names, and the number of the others."""
    shown = [group.name for group in groups[:NAMED]]
    more = len(groups) - len(shown)
    return ", ".join(shown) + (f" and {counted(more, 'more group')}" if more else "")
