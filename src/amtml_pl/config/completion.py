"""Complete a command line in bash: commands, keys and choices, also within lists and sweeps."""

from __future__ import annotations

import os
import shlex
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hydra import initialize_config_dir
from hydra._internal.core_plugins.bash_completion import BashCompletion
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from amtml_pl.config.command_keys import COMMANDS
from amtml_pl.config.help_page import OF_A_RUN
from amtml_pl.config.key import Key
from amtml_pl.config.override_errors import options_of
from amtml_pl.config.paths import config_directory
from amtml_pl.config.schema import KEYS
from amtml_pl.errors import UserError

# Bash replaces only what follows its last word break, such as = or an open quote: that is its argument $2.
SCRIPT = """\
_amtml() {{
    local line=${{COMP_LINE:0:COMP_POINT}}
    local word=${{line##* }} program=${{1%amtml*}}amtml
    mapfile -t COMPREPLY < <(COMP_LINE=$line "$program" completion query 2>/dev/null)
    COMPREPLY=("${{COMPREPLY[@]#"${{word%"$2"}}"}}")
}}
complete -o nospace -o default -F _amtml {programs}"""


def complete(words: Sequence[str], commands: Sequence[str]) -> None:
    """Print the script for bash, or the completions of the line in ``COMP_LINE``.

    Args:
        words: ``bash`` or, as the script passes, ``query``.
        commands: the names of all commands.
    """
    if words == ["bash"]:
        print(SCRIPT.format(programs=" ".join(["amtml", *(f"amtml-{name}" for name in commands)])))  # noqa: T201
    elif words == ["query"]:
        for completion in completions(os.environ.get("COMP_LINE", ""), commands):
            print(completion)  # noqa: T201
    else:
        got = " ".join(words) or "no word"
        fix = 'eval "$(amtml completion bash)"'
        raise UserError(f"Completion is written for one shell (got {got}, expected bash).", fix=fix)


def completions(line: str, commands: Sequence[str]) -> list[str]:
    """Return what the last word of a line may become.

    Args:
        line: up to the cursor, with the program ``amtml`` or ``amtml-<command>`` in front.
        commands: the names of all commands.
    """
    before, _, word = line.rpartition(" ")
    program, *words = plain_words(before)
    name = Path(program).name.removeprefix("amtml").removeprefix("-")
    if not name:
        if not words:
            return [command for command in commands if command.startswith(word)]
        name, *words = words
    if name not in commands:
        return []
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        return sorted(completed(name, words, word))


def plain_words(line: str) -> list[str]:
    """Return the words of a line without their quotes; with them if one is open."""
    try:
        return shlex.split(line) or [""]
    except ValueError:
        return line.split()


def completed(name: str, words: Sequence[str], word: str) -> Iterator[str]:
    """Yield what a word of a command may become; Hydra must be initialised."""
    quote = word[:1] if word[:1] in ("'", '"') else ""
    bare = word.removeprefix(quote)
    key, sign, value = bare.partition("=")
    known = values_of(name, key.lstrip("+")) if sign else []
    if name == "info" and not sign and not words:
        known = values_of(name, "info")
        yield from (choice for choice in known if choice.startswith(bare))
    elif known:
        start = max(value.rfind("["), value.rfind(",")) + 1
        given = value[:start].strip("[,").split(",")
        wanted = (each for each in known if each.startswith(value[start:]) and each not in given)
        yield from (f"{quote}{key}={value[:start]}{each}" for each in wanted)
    else:
        plugin = BashCompletion(GlobalHydra.instance().config_loader())
        try:
            found = plugin._query(config_name=name, line=" ".join([*words, bare]))
        except HydraException:  # a mistake in another word of the line
            return
        yield from (f"{quote}{each}" for each in found)


def values_of(name: str, path: str) -> list[str]:
    """Return the choices of a group, or the words that a key allows; else none."""
    keys = {**KEYS, **COMMANDS[name]} if name in OF_A_RUN else COMMANDS[name]
    in_groups = name in (*OF_A_RUN, "train") or path == "dataset"
    if in_groups and (found := options_of(path, [config_directory()])):
        return found
    declared = declaration(path, keys)
    return [] if declared is None else [*words_of(declared.hint)]


def declaration(path: str, keys: Mapping[str, Key]) -> Key | None:
    """Return the declaration of a dotted key; None for a constructor's argument."""
    found: Key | None = None
    for part in path.split("."):
        found = keys.get(part) or keys.get("*")
        keys = {} if found is None else found.keys
    return found


def words_of(hint: Any) -> Iterator[str]:
    """Yield the words that a type allows: those of a Literal, true and false."""
    if hint is bool:
        yield from ("true", "false")
    elif typing.get_origin(hint) is Literal:
        yield from map(str, typing.get_args(hint))
    else:
        for part in typing.get_args(hint):
            yield from words_of(part)
