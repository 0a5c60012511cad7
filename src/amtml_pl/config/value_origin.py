"""Where a value of the configuration was written: on the command line, or in which of the files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from amtml_pl.config.overrides import key_of

GLOBAL = ("method", "experiment", "sweep")
# Groups whose values lie elsewhere than under their names.
PLACES = {"augment": "data.augment", "experiment": "", "method": "", "sweep": ""}


def with_origin(problem: str, directory: Path) -> str:
    """A mistake that begins with its key path, and where that was written.

    Args:
        problem: a sentence.
        directory: of the configuration's files.
    """
    path = re.match(r"[\w.]*", problem)
    place = origin(path[0].rstrip("."), directory) if path is not None and path[0] else None
    return problem if place is None else f"{problem} ({place})"


def origin(path: str, directory: Path) -> str | None:
    """``command line``, or a file; None where nobody knows, as outside of a command."""
    if not HydraConfig.initialized():
        return None
    told = HydraConfig.get()
    words: Any = OmegaConf.to_container(told.overrides.task)  # as typed: not resolved
    typed = {key_of(word) for word in words} - {str(group) for group in told.runtime.choices}
    if any(path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.") for key in typed):
        return "command line"
    for group, name in files_of(path, directory):
        content = content_of(directory / group / f"{name}.yaml")
        place = PLACES.get(group, group)
        inner = path.removeprefix(place).lstrip(".") if path.startswith(place) else None
        if inner is not None and holds(content, inner):
            return f"conf/{group}/{name}.yaml"
    return "conf/train.yaml" if holds(content_of(directory / "train.yaml"), path) else None


def files_of(path: str, directory: Path) -> Iterator[tuple[str, str]]:
    """The files that may have given a value, the one that is composed last first."""
    choices: Any = OmegaConf.to_container(HydraConfig.get().runtime.choices)
    for group in GLOBAL:
        if choices.get(group):
            yield from chain(group, str(choices[group]), directory)
    first, _, rest = path.partition(".")
    if path.startswith("data.augment"):
        yield "augment", str(choices.get("augment"))
    if first in ("loss", "teacher", "logger"):
        yield first, rest.partition(".")[0]
    elif choices.get(first):
        yield from chain(first, str(choices[first]), directory)


def chain(group: str, name: str, directory: Path) -> Iterator[tuple[str, str]]:
    """A file and those of its own folder that it is based on."""
    yield group, name
    for entry in content_of(directory / group / f"{name}.yaml").get("defaults") or ():
        if isinstance(entry, str) and entry != "_self_" and "/" not in entry:
            yield from chain(group, entry, directory)


@lru_cache
def content_of(file: Path) -> dict[str, Any]:
    """A file's content; empty where there is none."""
    content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False) if file.is_file() else None
    return content if isinstance(content, dict) else {}


def holds(content: dict[str, Any], path: str) -> bool:
    """Whether a file sets a value, or something in it."""
    node: Any = content
    for part in filter(None, path.split(".")):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True
