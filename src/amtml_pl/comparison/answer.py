"""Answer in a few sentences which group is best, by how much, and how sure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from amtml_pl.comparison.estimates import PairedDifference, holm
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.system.console import counted

LEVEL = 0.05  # of all tests of a problem together, by Holm
NAMED = 4  # groups that a sentence names


def answer(problem: Problem, metric: str) -> str:
    """Return the best group, its distance from the others, and which tests separate them.

    Args:
        problem: with groups that have the metric, best first.
        metric: ranks and compares the groups.
    """
    return " ".join(sentences(problem, metric))


def sentences(problem: Problem, metric: str) -> Iterator[str]:
    """Yield the sentences of `answer`."""
    best, *others = problem.groups
    n = len(best.by_seed(metric))
    yield f"{best.name} has the best mean {metric}: {best.estimate(metric)} (n = {n})."
    if best.unequal:
        yield f"Its budget is unequal: {'; '.join(best.unequal)}."
    if others:
        yield from separated([*tested(best, others, metric)])
    baseline, paired = problem.baseline, best.against_baseline
    if baseline is not None and paired is not None and baseline not in problem.groups[:2]:
        yield f"From the baseline {baseline.name} it differs by {paired.difference()}{corrected(paired)}."


def tested(best: Group, others: Sequence[Group], metric: str) -> Iterator[tuple[Group, PairedDifference]]:
    """Yield every other group, and the difference of the best one from it."""
    own = best.by_seed(metric)
    found = [PairedDifference.between(own, other.by_seed(metric)) for other in others]
    values = iter(holm([paired.p for paired in found if paired.p is not None]))
    for other, paired in zip(others, found, strict=True):
        yield other, paired if paired.p is None else replace(paired, holm=next(values))


def separated(found: Sequence[tuple[Group, PairedDifference]]) -> Iterator[str]:
    """Yield sentences on the tests, and on the group after the best one."""
    if all(paired.p is None for _, paired in found):
        yield f"No test compares it with {names([group for group, _ in found])} ({found[0][1].without_p})."
        return
    alike = [group for group, paired in found if paired.holm is None or paired.holm >= LEVEL]
    if worse := len(found) - len(alike):
        others = counted(len(found), "other group")
        yield f"It is better than {worse} of {others} (paired t-tests, p by Holm below {LEVEL:g})."
    if alike:
        yield f"The tests do not separate it from {names(alike)}."
    following, paired = found[0]
    if paired.mean is not None:
        yield f"From {following.name}, the next one, it differs by {paired.difference()}{corrected(paired)}."


def corrected(paired: PairedDifference) -> str:
    """Return p by Holm in brackets; empty without p."""
    return f" (p by Holm {paired.corrected()}, n = {paired.n})" if paired.holm is not None else ""


def names(groups: Sequence[Group]) -> str:
    """Return the first names, and the number of the others."""
    shown = [group.name for group in groups[:NAMED]]
    more = len(groups) - len(shown)
    return ", ".join(shown) + (f" and {counted(more, 'more group')}" if more else "")
