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
from pathlib import Path
from typing import Any, Literal

from beartype import BeartypeConf
from beartype.door import is_bearable


@dataclass(frozen=True)
class Rule:
    """The type and range of one value.

    Attributes:
        hint: its type.
        expected: type and range, as a message shows them.
        holds: returns whether a value of that type is in range.
        required: whether it may not be left out.
    """

    hint: Any
    expected: str
    holds: Callable[[Any], bool] = lambda _: True
    required: bool = True


def rule_problems(
    node: Mapping[str, Any], rules: Mapping[str, Rule], path: str, known: Collection[str] = ()
) -> Iterator[str]:
    """Yield keys of a node that are missing, unknown or against their rule.

    Args:
        node: the values.
        rules: by key.
        path: of the node, "" for the root.
        known: keys beside those with a rule.
    """
    prefix = f"{path}." if path else ""
    for key in node.keys() - rules.keys() - set(known):
        yield f"{prefix}{key}: there is no such key{suggestion(str(key), {**rules, **dict.fromkeys(known)})}"
    for key, rule in rules.items():
        if key in node:
            yield from value_problem(node[key], rule, f"{prefix}{key}")
        elif rule.required:
            yield f"{prefix}{key} is missing: expected {rule.expected}"


def value_problem(value: object, rule: Rule, path: str) -> Iterator[str]:
    """Yield the error for one value, if there is one."""
    if not fits(value, rule.hint) or not rule.holds(value):
        yield f"{path}={value!r}: expected {rule.expected}"


def fits(value: Any, hint: Any) -> bool:
    """Return whether a YAML value has the type of an argument.

    Paths may be strings, and tuples lists. Unlike in Python, a boolean does not count as a number, nor a text
    as a sequence of letters.
    """
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if union:
        return any(fits(value, alternative) for alternative in typing.get_args(hint))
    if isinstance(value, bool) and hint in (int, float, complex):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, str) and typing.get_origin(hint) in (Sequence, Iterable, Collection):
        return False
    if isinstance(value, list) and any(isinstance(v, bool) for v in value):
        # The arguments of Literal are values.
        inner = () if typing.get_origin(hint) is Literal else typing.get_args(hint)
        if inner and not any(fits(True, each) for each in inner if each is not Ellipsis):
            return False
    conf = BeartypeConf(is_pep484_tower=True)
    candidates: list[object] = [value]
    if isinstance(value, str):
        candidates.append(Path(value))
    if isinstance(value, list):
        candidates.append(tuple(value))
    if not any(is_bearable(candidate, hint, conf=conf) for candidate in candidates):
        return False
    # beartype checks only one item of a list
    items = typing.get_args(hint) if isinstance(value, list) else ()
    kind = typing.get_origin(hint)
    return not (len(items) == 1 and kind in (list, Sequence, Iterable, Collection)) or all(
        fits(v, items[0]) for v in value
    )


def readable(hint: object) -> str:
    """Return a type in short form."""
    return hint.__name__ if inspect.isclass(hint) else re.sub(r"(typing|collections\.abc)\.", "", str(hint))


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """Return a question about a close known name, or else the list of known names."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it takes {sorted(known)}"
