"""Find where a configuration value was written: on the command line, or in which file."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from amtml_pl.config.overrides import key_of
from amtml_pl.config.paths import config_directory
from amtml_pl.config.reporting import command_state


def with_origin(problem: str) -> str:
    """Return a mistake followed by the place where its key was set."""
    path = re.match(r"[\w.]*", problem)
    place = origin(path[0].rstrip(".")) if path and path[0] else None
    return f"{problem} ({place})" if place else problem


def origin(path: str) -> str | None:
    """Return the command line, argument or file that sets a key; None if unknown."""
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    words: Any = OmegaConf.to_container(hydra.overrides)  # as typed: not resolved
    typed = {key_of(word) for word in words["task"]}
    # The choice of a file does not set the values in it.
    above = {key for key in typed if path.startswith(f"{key}.") and not is_group(key)}
    if path in typed or above or any(key.startswith(f"{path}.") for key in typed):
        return command_state.typed_in
    for package, name in composed_files(hydra.job.config_name, (*words["hydra"], *words["task"])):
        inside = not package or f"{path}.".startswith(f"{package}.")
        for folder in folders_of_files() if inside else ():
            if sets(content_of(folder / f"{name}.yaml"), path.removeprefix(package).lstrip(".")):
                return f"conf/{name}.yaml" if folder == config_directory() else f"{folder}/{name}.yaml"
    return None


@lru_cache
def composed_files(config_name: str, overrides: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return package and name of each composed file, by falling priority."""
    loader = GlobalHydra.instance().config_loader()
    composed = loader.compute_defaults_list(config_name, [*overrides], RunMode.RUN).defaults
    return [(each.package or "", each.config_path) for each in reversed(composed)]


def folders_of_files() -> list[Path]:
    """Return the folders of the configuration's files: the user's own, then the installed one."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    own = [Path(source.path) for source in sources if source.schema == "file"]
    return [*own, *([] if config_directory() in own else [config_directory()])]


def is_group(key: str) -> bool:
    """Return True if a key selects files."""
    return any((folder / key).is_dir() for folder in folders_of_files())


def file_of(group: str, name: str) -> Path | None:
    """Return the file of a choice; None for a name without one."""
    files = (folder / group / f"{name}.yaml" for folder in folders_of_files())
    return next((file for file in files if file.is_file()), None)


@lru_cache
def content_of(file: Path) -> Any:
    """Return a YAML file's content; empty if the file does not exist."""
    return OmegaConf.to_container(OmegaConf.load(file), resolve=False) if file.is_file() else {}


def sets(node: Any, path: str) -> bool:
    """Return True if a file's content sets a value, or one below it."""
    for part in filter(None, path.split(".")):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return bool(path) or bool(node)
