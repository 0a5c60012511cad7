"""Report all mistakes in overrides, briefly; Hydra reports one, at length."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from amtml_pl.config.key import leaves
from amtml_pl.config.overrides import hydra_literal, key_of
from amtml_pl.config.paths import config_directory
from amtml_pl.config.reporting import command_state
from amtml_pl.config.rules import closest, either, suggestion
from amtml_pl.config.schema import COMPOSES, KEYS
from amtml_pl.config.teacher_recipe import leaves_of
from amtml_pl.config.values import SELECTED, unselected

# What users of Lightning and of lightning-hydra-template type.
ALWAYS = "; remove it: "
OWN_LOGGER = "; write a YAML file for it (docs/loggers.md, 'Add a logger or a callback')"
INSTEAD = {
    **dict.fromkeys(("debug=true", "debug=false"), "; traceback=true prints tracebacks"),
    **dict.fromkeys(("debug=fdr", "debug=default", "debug=limit", "debug=step"), "; use debug=fast"),
    "debug=profile": "; use debug=profiler",
    "callbacks=model_checkpoint": f"{ALWAYS}best.ckpt and last.ckpt are always written",
    "callbacks=rich_progress_bar": f"{ALWAYS}a terminal always shows the progress",
    "callbacks=model_summary": f"{ALWAYS}the plan always shows the size of the student",
    "callbacks=rich_model_summary": f"{ALWAYS}the plan always shows the size of the student",
    "callbacks=learning_rate_monitor": "; use callbacks=[lr_monitor]",
    "callbacks=default": "; use a list, such as 'callbacks=[ema,lr_monitor]'",
    "callbacks=none": "; use 'callbacks=[]'",
    "logger=none": "; use 'logger=[]'",
    "logger=many_loggers": "; use a list: 'logger=[tensorboard,wandb]'",
    **dict.fromkeys(("logger=aim", "logger=comet", "logger=neptune", "logger=litlogger"), OWN_LOGGER),
}
WITHOUT_SLURM = (
    "launcher=slurm needs SLURM (got a machine without srun, expected a login node of a cluster). "
    "Fix: run the command on a login node, or try it here with launcher=submitit_local"
)
WITHOUT_SEARCH = (
    "an interval needs a search (got hydra/sweeper=basic, expected hydra/sweeper=optuna_study). "
    "Fix: add hydra/sweeper=optuna_study, or give values, such as 'temperature=2,4,8' (docs/sweeps.md)"
)
# What a choice sets, if not the keys below its group; empty: any key.
SETS = {"experiment": "", "method": "", "launcher": "hydra.", "sweep": "hydra."}
SEARCHED = "hydra.searchpath="
OVERRIDES = re.compile(r"\s[+~]*[\w./@]+=")  # after another one in the same string
ENTRY = re.compile(r"(?:[^,\[\]]|\[[^\[\]]*\])+")  # of a list, whose entries may be lists


def command_line_mistakes(typed: Sequence[str], config_name: str, *, swept: bool = True) -> list[str]:
    """Return all mistakes in some overrides, each with known alternatives; Hydra must be initialised.

    Every choice of a swept group is checked, and the first of other values.
    """
    problems: list[str] = []
    sound: dict[str, str] = {}
    unset: list[str] = []
    folders = searched_folders(typed)
    for word in typed:
        try:
            [override] = OverridesParser.create().parse_overrides([word])
        except OverrideParseException as error:
            problems.append(f"{word}: {reason(error)}{quoting(word)}")
            continue
        options = options_of(override.key_or_group, folders)
        if override.is_sweep_override() and not swept:
            problems.append(f"{word}: several values need a sweep ({sweep_start()})")
        elif wrong := [*option_problems(override, options)]:
            problems += [problem for problem, _, _ in wrong]
            unset += [keys for _, _, keys in wrong]
            if isinstance(first := values_of(override)[0], list):
                unknown = [name for _, name, _ in wrong]
                known = [name for name in first if name not in unknown]
                sound[word] = f"{override.get_key_element()}={hydra_literal(known)}"
        else:
            sound[word] = first_value(override, options)
    sound = {word: first for word, first in sound.items() if not would_set(unset, key_of(word))}
    problems += key_problems(sound, config_name, folders)
    return [f"{problem} ({command_state.typed_in})" for problem in problems]


def would_set(unset: Sequence[str], key: str) -> bool:
    """Return True if an unknown choice may have set a key, whose root is known."""
    known = key.split(".")[0] in {*COMPOSES, *KEYS}
    return any(key.startswith(beginning) and (known or beginning != "") for beginning in unset)


def sweep_start() -> str:
    """Return how to start a sweep with the words of this command or call."""
    if not command_state.called:
        return "expected -m"
    return "in a terminal: " + shlex.join(["python", "-m", f"amtml_pl.{sys.argv[0]}", "-m", *sys.argv[1:]])


def searched_folders(typed: Sequence[str]) -> list[Path]:
    """Return the folders of choices: the installed one, and those of ``hydra.searchpath``."""
    words = ",".join(word.removeprefix(SEARCHED).strip("[]") for word in typed if word.startswith(SEARCHED))
    names = [name.strip(" '\"").removeprefix("file://") for name in words.split(",")]
    return [config_directory(), *map(Path, filter(None, names))]


def options_of(group: str, folders: Sequence[Path]) -> list[str]:
    """Return the choices of a group; none for a key or for Hydra's own groups."""
    if group.startswith("hydra"):
        return []
    names = [file.name for folder in folders for file in (folder / group).glob("*.yaml")]
    with suppress(OSError):  # a key, or a group of files only
        names += ConfigStore.instance().list(group)  # among them a teacher for each network
    return sorted({Path(name).stem for name in names})


def option_problems(override: Override, options: Sequence[str]) -> Iterator[tuple[str, object, str]]:
    """Yield message and name of each unknown choice, and the beginning of its keys."""
    group = override.key_or_group
    if not options or override.is_delete():
        return
    for value in values_of(override):
        for name in value if isinstance(value, list) else [value]:
            keys = SETS.get(group, f"{group}.{name}." if isinstance(value, list) else f"{group}.")
            if name is None and group not in COMPOSES:
                message = f"{group}=null: expected one of {options}{INSTEAD.get(f'{group}=none', '')}"
                yield message, name, keys
            elif name is not None and str(name) not in options and not is_of_timm(group, str(name)):
                meant = INSTEAD.get(f"{group}={str(name).lower()}") or suggestion(
                    str(name), dict.fromkeys(options)
                )
                yield f"{group}={name}: unknown choice{meant}", name, keys


def is_of_timm(group: str, name: str) -> bool:
    """Return True for a network of timm, whose name the check of the constructor verifies."""
    return group in ("student", "teacher") and name.startswith("timm/")


def values_of(override: Override) -> list[object]:
    """Return the values of an override; none for a pattern or an interval."""
    if not override.is_sweep_override():
        return [override.value()]
    if isinstance(override.value(), Glob) or not override.is_discrete_sweep():
        return []
    parser = OverridesParser.create()
    words = [f"{override.key_or_group}={value}" for value in override.sweep_string_iterator()]
    return [each.value() for each in parser.parse_overrides(words)]


def first_value(override: Override, options: Sequence[str] = ()) -> str:
    """Return an override with the first of its values; empty for a search interval."""
    if not override.is_sweep_override():
        return str(override.input_line)
    values: Iterable[str] = ()
    if isinstance(pattern := override.value(), Glob):
        values = pattern.filter(list(options))
    elif override.is_discrete_sweep():
        values = override.sweep_string_iterator()
    return next((f"{override.get_key_element()}={value}" for value in values), "")


def key_problems(sound: dict[str, str], config_name: str, folders: Sequence[Path]) -> Iterator[str]:
    """Yield keys that do not exist in the composed configuration."""
    words = [word for word in sound.values() if word]
    choices = [
        word for word in words
        if word.startswith(("hydra/", SEARCHED)) or options_of(key_of(word), folders)
    ]  # fmt: skip
    try:
        compose(config_name, words)
    except (HydraException, OmegaConfBaseException) as error:
        try:
            composed = compose(config_name, choices, return_hydra_config=True)
            tree: Any = OmegaConf.to_container(composed, resolve=False)
        except (HydraException, OmegaConfBaseException) as of_choices:
            yield reason(of_choices)
            return
        of_hydra = {"hydra": tree.pop("hydra")}
        keys = [word for word, first in sound.items() if first and first not in choices and word[0] != "+"]
        found = [
            problem
            for word in keys
            for problem in key_path_problems(word, of_hydra if word.startswith("hydra.") else tree, folders)
        ]
        yield from found or [reason(error)]


def key_path_problems(word: str, tree: dict[str, Any], folders: Sequence[Path]) -> Iterator[str]:
    """Yield what is wrong with the key of an override."""
    node: Any = tree
    path = ""
    for part in key_of(word).split("."):
        if not isinstance(node, dict):
            yield f"{word}: the key {path} has a single value, and no keys below it"
            return
        if part not in node:
            if path in SELECTED and part in options_of(path, folders):
                yield f"{word}: {unselected(path, part, node)}"
            elif word.startswith("info=") and not path:
                yield f"{word}: a command lists choices: python -m amtml_pl.info {word.removeprefix('info=')}"
            elif path != "coef":  # which takes the names of all terms
                known = node if path else {**node, **COMPOSES}
                inside = [] if path or closest(part, known) else keys_below(tree, part)
                meant = f"; did you mean {either(inside)}?" if inside else suggestion(part, known)
                yield f"{path}{'.' if path else ''}{part}: unknown key{meant}"
            return
        node, path = node[part], f"{path}.{part}" if path else part


def keys_below(tree: dict[str, Any], name: str) -> list[str]:
    """Return the quoted paths whose last part is a name, else those that have it."""
    declared = leaves({key: KEYS[key] for key in tree if key in KEYS})
    paths = {path for path, _ in (*declared, *leaves_of(tree, "")) if "*" not in path}
    parts = {path: path.rpartition(".")[2] for path in sorted(paths)}
    same = [path for path, part in parts.items() if part == name]
    return [repr(path) for path in same or [path for path, part in parts.items() if name in part.split("_")]]


def quoting(word: str) -> str:
    """Return how to quote a value that Hydra's grammar does not read as text."""
    key, sign, value = word.partition("=")
    if not (sign and value) or set(value) & set("'\""):
        return ""
    if value[0] + value[-1] == "{}" and (escaped := re.sub(r"(?<!\\)=", r"\=", value)) != value:
        return f"; to pass an equals sign in braces: '{key}={escaped}'"
    if "\\" in value:
        return ""
    if command_state.called and OVERRIDES.search(value):
        return "; pass each override as a string of its own"
    entries = [entry.strip() for entry in ENTRY.findall(value[1:-1])] if value[0] + value[-1] == "[]" else []
    is_nested = "{" in value or "[[" in value
    if entries and not is_nested and all("=" in entry for entry in entries):
        listed = ",".join(f"'{entry}'" for entry in entries)  # such as those of a teacher's recipe
        return f'; to pass a list of overrides: "{key}=[{listed}]"'
    return f"; to pass the value as a string: '{key}=\"{value}\"'"


def reason(error: Exception) -> str:
    """Return the first useful line of Hydra's message, and the YAML file that it names."""
    lines = filter(None, map(str.strip, str(error).splitlines()))
    useful = [line for line in lines if not line.startswith(("Error parsing override", "See https://"))]
    place = next((line for line in useful if line.startswith('in "')), "")  # of a mistake in a YAML file
    first = useful[0] if useful else type(error).__name__
    if 'Could not detect "srun"' in first:  # of submitit
        return WITHOUT_SLURM
    if "does not support sweep type" in first:  # of Hydra's own sweeper
        return WITHOUT_SEARCH
    return f"{first} {place}" if place and place != first else first
