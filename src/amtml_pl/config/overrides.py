"""Parse the overrides of a command, and choose those that describe what was studied."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from amtml_pl.config.key_roles import is_label

# The options of Hydra that are followed by their value.
WITH_VALUE = ("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--package", "-p")

# The keys that make a repeated command start its runs again.
STARTS_AGAIN = ("force", "resume")


def overrides_of(command: str) -> list[str]:
    """Return the unquoted overrides of a ``python -m amtml_pl.train`` command, without options."""
    words = shlex.split(command)[3:]
    named = {number + 1 for number, word in enumerate(words) if word in WITH_VALUE}
    return [word for number, word in enumerate(words) if number not in named and not word.startswith("-")]


def value_of(key: str, overrides: Sequence[str]) -> str:
    """Return the value of the last override of a key; empty if there is none."""
    found = [word.partition("=")[2] for word in overrides if key_of(word) == key]
    return found[-1] if found else ""


def without_places(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that describe what was studied, not where and how it ran."""
    return [word for word in overrides if is_label(key_of(word))]


def without_common(overrides: Sequence[str], of_all: Sequence[Sequence[str]]) -> list[str]:
    """Return one command's overrides without those that all commands have."""
    common = set.intersection(*(set(each) for each in of_all))
    return [word for word in overrides if word not in common]


def key_of(override: str) -> str:
    """Return the key or group of an override, without a package after ``@``."""
    return re.split(r"[=@]", override.lstrip("+~"))[0]


def hydra_literal(value: object) -> str:
    """Return a value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        plain = value.replace("_", "").replace(".", "").replace("-", "").replace("/", "")
        special = value.lower() in ("", "null", "true", "false", "nan", "inf") or not plain.isalpha()
        # A backslash is literal, except before a quote, where it is doubled.
        escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
        return f"'{escaped}'" if special or not value[0].isalpha() else value
    if isinstance(value, list):
        return f"[{','.join(map(hydra_literal, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{hydra_literal(child)}" for key, child in value.items()) + "}"
    return repr(value)
