"""Find groups that differ only in the variables of a figure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from amtml_pl.comparison.groups import Group
from amtml_pl.comparison.naming import configuration, told_apart, unlike_facts
from amtml_pl.comparison.recorded_run import Run
from amtml_pl.config.key_roles import is_label
from amtml_pl.config.overrides import key_of

Place = TypeVar("Place", bound=Hashable)


@dataclass(frozen=True)
class Family(Generic[Place]):
    """Groups that differ only in their place, best first.

    Its name is what they have in common and other families do not.
    """

    name: str
    groups: Mapping[Place, Group]


@dataclass(frozen=True)
class Varied:
    """The variables of a figure: keys of overrides and configuration, and facts of a record."""

    settings: tuple[str, ...]
    facts: tuple[str, ...]


def families_of(
    groups: Iterable[Group], varied: Varied, place_of: Callable[[Run], Place]
) -> list[Family[Place]]:
    """Return the groups of a problem, separated by everything except the varied keys.

    Two groups with the same place are never in one family. If no record separates them, as after an edit of
    a configuration file between two sweeps, the configuration does, or else a number.
    """
    groups = list(groups)
    several = len({group.first.experiment for group in groups}) > 1
    alike: dict[Hashable, list[Group]] = defaultdict(list)
    for group in groups:
        words, facts = words_of(group.first, varied, several=several), facts_of(group.first, varied)
        alike[tuple(sorted(words)), tuple(sorted(facts.items()))].append(group)
    names, facts_by_family, members = [], [], []
    for same in alike.values():
        first = same[0].first
        for more, own in one_of_each_place(same, varied, place_of):
            names.append(" ".join(words_of(first, varied, several=several)))
            facts_by_family.append({**facts_of(first, varied), **more})
            members.append(own)
    names = told_apart(names, lambda alike: unlike_facts([facts_by_family[number] for number in alike]))
    return sorted(map(Family, names, members), key=lambda family: family.name)


def words_of(run: Run, varied: Varied, *, several: bool) -> list[str]:
    """Return a run's experiment, method and settings, without those that are varied."""
    first = [run.experiment, run.method] if several or not run.method else [run.method]
    own = [word for word in run.settings if key_of(word).partition(".")[0] not in varied.settings]
    return [*filter(None, first), *own]


def facts_of(run: Run, varied: Varied) -> dict[str, str]:
    """Return the facts of a record without those that are varied."""
    return {name: fact for name, fact in run.facts.items() if name.partition(".")[0] not in varied.facts}


def one_of_each_place(
    groups: Sequence[Group], varied: Varied, place_of: Callable[[Run], Place]
) -> Iterator[tuple[dict[str, str], dict[Place, Group]]]:
    """Yield parts of some groups with each place once, and what their configurations set."""
    if len({place_of(group.first) for group in groups}) == len(groups):
        yield {}, {place_of(group.first): group for group in groups}
        return
    configured: dict[Hashable, tuple[dict[str, str], list[Group]]] = {}
    for group in groups:
        values = {
            name: text
            for name, text in configuration(group.first.folder).items()
            if is_label(name) and not {*name.split(".")} & {*varied.settings}
        }
        configured.setdefault(tuple(sorted(values.items())), (values, []))[1].append(group)
    for values, same in configured.values():
        parts: list[dict[Place, Group]] = []
        for group in same:
            place = place_of(group.first)
            free = next((part for part in parts if place not in part), None)
            if free is None:
                parts.append(free := {})
            free[place] = group
        yield from ((values, part) for part in parts)
