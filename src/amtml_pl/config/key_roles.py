"""Derive which keys identify a run, label it, or reach its teachers' recipes."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from amtml_pl.config.key import Identity, Key
from amtml_pl.config.schema import COMPOSES, KEYS, WATCHING


def keys_along(path: str) -> Iterator[Key | None]:
    """Yield the declaration of each part of a key; None for a constructor's argument."""
    keys: Mapping[str, Key] = {**KEYS, **COMPOSES}
    for part in re.split(r"[./]", path):
        found = keys.get(part) or keys.get("*")
        yield found
        if found is None:
            return
        keys = found.keys


def changes_result(path: str) -> bool:
    """Return True if a key can change a result."""
    return all(key is None or key.identity != "never" for key in keys_along(path))


def is_label(path: str) -> bool:
    """Return True if overrides of a key describe what was studied, not where or how."""
    *_, last = keys_along(path)
    return changes_result(path) and (last is None or last.label)


def handed_to_recipes(keys: Mapping[str, Key] = KEYS, prefix: str = "") -> Iterator[str]:
    """Yield the keys that a teacher's recipe takes from the run."""
    for name, key in keys.items():
        if key.recipe:
            yield f"{prefix}{name}"
        elif "*" not in key.keys:
            yield from handed_to_recipes(key.keys, f"{prefix}{name}.")


def identified(
    node: Mapping[str, Any], keys: Mapping[str, Key], where: Collection[Identity]
) -> dict[str, Any]:
    """Return the part of a node that counts for a run's hash.

    Args:
        node: resolved values. Undeclared keys are arguments of a constructor, and count.
        keys: declared for it.
        where: the identities that apply to the run.
    """
    found = {}
    for name, value in node.items():
        key = keys.get(name) or keys.get("*")
        is_set = key is not None and key.identity == "set" and value is not None and value is not False
        if key is None or is_set or key.identity in where:
            found[name] = identified(value, key.keys, where) if key and isinstance(value, Mapping) else value
    return found


def changing_callbacks(callbacks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the callbacks that may change a result, which their constructors decide."""
    return {name: node for name, node in callbacks.items() if node.get("_target_") not in WATCHING}
