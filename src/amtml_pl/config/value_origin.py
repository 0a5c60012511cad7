"""Find where a value of the configuration was written: on the command line, or in which of the files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from amtml_pl.config.overrides import key_of
from amtml_pl.config.paths import config_directory


def with_origin(problem: str) -> str:
    """Return a mistake that begins with its key path, and where that was written."""
    path = re.match(r"[\w.]*", problem)
    place = origin(path[0].rstrip(".")) if path is not None and path[0] else None
    return problem if place is None else f"{problem} ({place})"


def origin(path: str) -> str | None:
    """Return ``command line``, or a file; None where no file sets the key, and outside of a command."""
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    words: Any = OmegaConf.to_container(hydra.overrides.task)  # as typed: not resolved
    typed = {key_of(word) for word in words} - {str(group) for group in hydra.runtime.choices}
    if any(path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.") for key in typed):
        return "command line"
    loader = GlobalHydra.instance().config_loader()
    composed = loader.compute_defaults_list(hydra.job.config_name, words, RunMode.RUN).defaults
    for each in reversed(composed):  # the last one that sets a key counts
        package = each.package or ""
        for folder in folders_of_files():
            file = folder / f"{each.config_path}.yaml"
            inside = path == package or path.startswith(f"{package}.") or not package
            if inside and file.is_file() and sets(file, path.removeprefix(package).lstrip(".")):
                return f"conf/{each.config_path}.yaml" if folder == config_directory() else str(file)
    return None


def folders_of_files() -> list[Path]:
    """Return where the configuration's files lie: the user's own folders, and the installed one."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    own = [Path(source.path) for source in sources if source.schema == "file"]
    return [*own, *([] if config_directory() in own else [config_directory()])]


def sets(file: Path, path: str) -> bool:
    """Return True if a file sets a value, or something in it."""
    node: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    for part in filter(None, path.split(".")):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True
