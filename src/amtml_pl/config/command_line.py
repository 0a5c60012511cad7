"""Read this process's command line, before Hydra and for a message about its mistakes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.global_hydra import GlobalHydra

from amtml_pl.config.override_errors import command_line_mistakes
from amtml_pl.config.paths import config_directory
from amtml_pl.config.rules import closest


def options_and_overrides(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of a command line, such as ``-m``, and the overrides."""
    overrides = get_args_parser().parse_known_intermixed_args(words)[0].overrides
    options = list(words)
    for word in overrides:
        options.remove(word)
    return options, overrides


def typed_mistakes() -> list[str]:
    """Return mistakes in this process's command line; none if it has a ``--config-name``."""
    arguments = get_args_parser().parse_args()
    if problem := folder_mistake(arguments.config_dir):
        return [problem]
    if arguments.config_name is not None:
        return []
    typed = list(arguments.overrides)
    if arguments.config_dir is not None:
        typed.insert(0, f"hydra.searchpath=[file://{Path(arguments.config_dir).resolve()}]")
    name = typed_name()
    if not (config_directory() / f"{name}.yaml").is_file():
        name = "train"
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        return command_line_mistakes(typed, name, swept=arguments.multirun)


def typed_name() -> str:
    """Return the name of this process's command, such as ``train``."""
    return Path(sys.argv[0]).stem.removeprefix("amtml-")


def folder_mistake(typed: str | None) -> str:
    """Return what is wrong with ``--config-dir``; empty if nothing is."""
    if typed is None or (folder := Path(typed)).is_dir():
        return ""
    others = [each.name for each in folder.parent.glob("*/")] if folder.parent.is_dir() else []
    close = closest(folder.name, others)
    meant = f"; did you mean {str(folder.parent / close)!r}?" if close else ""
    return f"--config-dir={typed} is not a folder{meant}"
