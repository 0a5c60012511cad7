"""Rules for values: a type, a range, and the message for a value outside it."""

from __future__ import annotations

import difflib
import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import Any

from beartype import BeartypeConf
from beartype.door import is_bearable

SEQUENCES = (Sequence, Iterable, Collection)


@dataclass(frozen=True)
class Rule:
    """The type and range of one value.

    Attributes:
        hint: its type.
        expected: type and range, as a message shows them.
        holds: returns True if a value of that type is in range.
        required: False if it may be left out.
    """

    hint: Any
    expected: str
    holds: Callable[[Any], bool] = lambda _: True
    required: bool = True


def rule_problems(
    node: Mapping[str, Any], rules: Mapping[str, Rule], path: str, known: Collection[str] = ()
) -> Iterator[str]:
    """Yield keys of a node that are missing, unknown or against their rule."""
    prefix = f"{path}." if path else ""
    for key in node.keys() - rules.keys() - set(known):
        yield f"{prefix}{key}: unknown key{suggestion(str(key), {**rules, **dict.fromkeys(known)})}"
    for key, rule in rules.items():
        if key in node:
            yield from value_problem(node[key], rule, f"{prefix}{key}")
        elif rule.required:
            yield f"{prefix}{key} is missing: expected {rule.expected}"


def value_problem(value: object, rule: Rule, path: str) -> Iterator[str]:
    """Yield the error for one value that its rule rejects."""
    if not fits(value, rule.hint) or not rule.holds(value):
        shown = f"{path} is missing" if value is None else f"{path}={value!r}"
        yield f"{shown}: expected {rule.expected}"


def fits(value: Any, hint: Any) -> bool:
    """Return True if a YAML value has the type of an argument.

    Paths may be strings, and tuples lists. Unlike in Python, bools are rejected as numbers, and strings as
    sequences.
    """
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind in (typing.Union, types.UnionType):
        return any(fits(value, alternative) for alternative in inner)
    if isinstance(value, bool) and hint in (int, float, complex):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, str) and kind in SEQUENCES:
        return False
    if isinstance(value, list) and kind is tuple:
        hints = inner[:1] * len(value) if Ellipsis in inner else inner
        return len(hints) == len(value) and all(map(fits, value, hints))
    if isinstance(value, list) and kind in (list, *SEQUENCES):  # beartype checks only one item of a list
        return all(fits(item, inner[0]) for item in value)
    other = Path(value) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
    return any(is_bearable(each, hint, conf=BeartypeConf(is_pep484_tower=True)) for each in (value, other))


def readable(hint: object) -> str:
    """Return a type in short form, and the choices of a literal as words."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind is typing.Literal:
        return either([str(value) for value in inner])
    if kind in (typing.Union, types.UnionType):
        # A YAML file has no tensors.
        return either([readable(each) for each in inner if getattr(each, "__name__", "") != "Tensor"])
    if hint is types.NoneType:
        return "null"
    if hint is float:
        return "a number"
    return hint.__name__ if inspect.isclass(hint) else re.sub(r"(typing|collections\.abc)\.", "", str(hint))


def either(choices: Sequence[str]) -> str:
    """Return a list of choices with "or" before the last one."""
    return " or ".join(part for part in (", ".join(choices[:-1]), choices[-1]) if part)


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """Return the closest known name as a question; without one, all known names."""
    close = closest(name, known)
    return f"; did you mean {close!r}?" if close else f"; expected one of {sorted(known)}"


def closest(name: str, known: Collection[str]) -> str | None:
    """Return the most similar name, of equal ones that with most letters in their places."""
    similar = difflib.get_close_matches(name, known, n=len(known)) if known else []

    def likeness(other: str) -> tuple[float, int]:
        return difflib.SequenceMatcher(None, other, name).ratio(), sum(map(eq, other, name))

    return max(similar, key=likeness, default=None)
