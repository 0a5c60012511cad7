"""Describe one key: its value, its help, and where it counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from amtml_pl.config.rules import Rule, either

# Where a key is part of a run's identity, the hash in its folder's name:
Identity = Literal[
    "always",
    "teachers",  # in runs with teachers
    "cached",  # in runs whose teachers are cached
    "readers",  # in the nodes that interpolate it, and nowhere else
    "set",  # unless it is null or false, so that a new key changes no older hash
    "never",  # it changes no result
]


@dataclass(frozen=True)
class Key(Rule):
    """The declaration of one key.

    Attributes:
        help: one line.
        identity: where the key counts for the run's hash.
        label: True if an override of it names a group of runs in the report.
        recipe: True if a teacher's recipe takes it from the run.
        keys: those of a node; ``*`` stands for names chosen by the user.
        constructed: True if a node has a ``_target_``, which declares its other keys.
    """

    help: str = ""
    identity: Identity = "always"
    label: bool = True
    recipe: bool = False
    keys: Mapping[str, Key] = field(default_factory=dict)
    constructed: bool = False


def key(rule: Rule, help_text: str, **about: Any) -> Key:
    """Return a key whose value follows a rule."""
    return Key(**{**vars(rule), "help": help_text, **about})


def node(example: str, help_text: str, keys: Mapping[str, Key] | None = None, **about: Any) -> Key:
    """Return a key that holds other keys."""
    return Key(dict, f"settings, e.g. {example}", help=help_text, keys=keys or {}, **about)


def choice(*values: str) -> Rule:
    """Return a rule for one of several words."""
    return Rule(Literal[values], either(values))


def number(
    expected: str, holds: Callable[[float], bool] = lambda _: True, *, null: bool = False, hint: type = float
) -> Rule:
    """Return a rule for a number in a range."""
    if not null:
        return Rule(hint, expected, holds)
    return Rule(hint | None, f"{expected}, or null", lambda value: value is None or holds(value))


def whole(least: int, *, null: bool = False) -> Rule:
    """Return a rule for a whole number with a minimum."""
    return number(f"a whole number, {least} or more", lambda v: v >= least, null=null, hint=int)


SWITCH = Rule(bool, "true or false")
FOLDER = Rule(str, "a folder path", bool)
FILE = Rule(str | None, "a file path or null")
TEXT = Rule(str | None, "a string or null")
SEED = Rule(int, "a whole number, 0 or more, at most 4294967295", lambda v: 0 <= v < 2**32)
SEEDS = Rule(list[int], "seeds in a list, e.g. [0,1]", lambda v: bool(v) and all(map(SEED.holds, v)))


def leaves(keys: Mapping[str, Key], prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yield every declared key with its dotted path, nodes before their keys."""
    for name, each in keys.items():
        path = f"{prefix}{name}"
        yield path, each
        yield from leaves(each.keys, f"{path}.")
