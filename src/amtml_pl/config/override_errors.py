"""Mistakes in what is typed, all at once and short: Hydra names the first one, at length."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_search_path_impl import ConfigSearchPathImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from amtml_pl.config.overrides import key_of
from amtml_pl.config.schema import LIST_GROUPS, suggestion

NULLABLE = ("experiment", "method", "sweep", "launcher")
NAMED = re.compile(r"Could not override '([^']+)'|'([^']+)' does not exist|but config group '([^']+)'")


def command_line_mistakes(
    typed: Sequence[str],
    loader: ConfigLoader,
    composed: Callable[[list[str]], DictConfig],
    *,
    swept: bool = True,
) -> list[str]:
    """Everything that is wrong with some overrides, each with what is known instead.

    Args:
        typed: the overrides; every choice of a sweep for a group is looked at, of its values the first.
        loader: that knows the groups and their options.
        composed: gives the configuration of overrides, or raises Hydra's exceptions.
        swept: whether a key may have several values.
    """
    problems: list[str] = []
    sound: dict[str, str] = {}
    loader = with_typed_folders(loader, typed)
    for word in typed:
        try:
            [override] = OverridesParser.create(loader).parse_overrides([word])
        except OverrideParseException as error:
            problems.append(f"{word}: {reason(error)}{quoting(word)} (command line)")
            continue
        if override.is_sweep_override() and not swept:
            problems.append(f"{word}: several values are a sweep; expected -m before them (command line)")
            continue
        wrong = [*option_problems(override, loader)]
        problems += wrong
        if not wrong:
            sound[word] = first_value(override)
    return [*problems, *key_problems(sound, loader, composed)]


def with_typed_folders(loader: ConfigLoader, typed: Sequence[str]) -> ConfigLoader:
    """A loader that knows what lies in the folders of ``hydra.searchpath`` too, as composing does."""
    folders = [word.partition("=")[2] for word in typed if word.startswith("hydra.searchpath=")]
    if not folders:
        return loader
    places = ConfigSearchPathImpl()
    for known in loader.get_search_path().get_path():
        places.append(known.provider, known.path)
    for folder in ",".join(each.strip("[]") for each in folders).split(","):
        places.append("command-line", folder.strip(" '\""))
    return ConfigLoaderImpl(places)


def option_problems(override: Override, loader: ConfigLoader) -> Iterator[str]:
    """Choices of a group that do not exist."""
    group = override.key_or_group
    options = loader.get_group_options(group, ObjectType.CONFIG)
    if not options or override.is_delete():
        return
    for value in values_of(override):
        for name in value if isinstance(value, list) else [value]:
            if name is None and group not in NULLABLE:
                yield f"{group}=null: expected one of {options} (command line)"
            elif name is not None and str(name) not in options:
                yield (
                    f"{group}={name}: there is no such choice{suggestion(str(name), dict.fromkeys(options))} "
                    "(command line)"
                )


def values_of(override: Override) -> list[object]:
    """The value of an override, or all that a sweep gives it."""
    if not override.is_sweep_override():
        return [override.value()]
    if not override.is_discrete_sweep():
        return []
    parser = OverridesParser.create()
    words = [f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()]
    return [each.value() for each in parser.parse_overrides(words)]


def first_value(override: Override) -> str:
    """An override with the first of its values; a search's interval is left out."""
    if not override.is_sweep_override():
        return str(override.input_line)
    if not override.is_discrete_sweep():
        return ""
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


def key_problems(
    sound: dict[str, str], loader: ConfigLoader, composed: Callable[[list[str]], DictConfig]
) -> Iterator[str]:
    """Keys that do not exist: what Hydra stumbles over is left out, until it does not stumble any more."""
    left, strangers = dict(sound), []
    while True:
        try:
            config = composed([word for word in left.values() if word])
        except (HydraException, OmegaConfBaseException) as error:
            word = culprit(str(error), left)
            if word is None:
                yield f"{reason(error)}"
                return
            strangers.append(word)
            del left[word]
        else:
            yield from (f"{stranger(word, config, loader)} (command line)" for word in strangers)
            return


def culprit(message: str, typed: dict[str, str]) -> str | None:
    """The override that an exception is about; None where it does not say."""
    found = NAMED.search(message)
    key = next(filter(None, found.groups())) if found else None
    return next((word for word in typed if key is not None and key_of(word) == key), None)


def stranger(word: str, config: DictConfig, loader: ConfigLoader) -> str:
    """What is wrong with the key of an override."""
    node: Any = OmegaConf.to_container(config, resolve=False)
    path = ""
    for part in key_of(word).split("."):
        if not isinstance(node, dict):
            return f"{word}: {path} is no mapping"
        if part not in node:
            if path in (*LIST_GROUPS, "teacher") and part in loader.get_group_options(path):
                return (
                    f"{word}: {path}.{part} has settings but is not selected: add it to {path}=[...], or "
                    f"remove the setting (selected: {list(node)})"
                )
            where = f"{path}." if path else ""
            return f"{where}{part}: there is no such key{suggestion(part, node)}"
        node, path = node[part], f"{path}.{part}" if path else part
    return f"{word}: it cannot be set"


def quoting(word: str) -> str:
    """How a value is typed that Hydra's grammar takes for more than a text, such as a name with brackets."""
    key, sign, value = word.partition("=")
    meant = sign and value and not set(value) & set("'\"\\")
    return f"; if it is meant as a text: '{key}=\"{value}\"'" if meant else ""


def reason(error: Exception) -> str:
    """The first sentence of Hydra's that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Error parsing override", "See https://"))]
    place = next((line for line in told if line.startswith('in "')), "")  # of a mistake in a YAML file
    first = told[0] if told else type(error).__name__
    return f"{first} {place}" if place and place != first else first
