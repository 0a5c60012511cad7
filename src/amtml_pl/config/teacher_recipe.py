"""Compose the recipe that trains a teacher without weights, also as a command."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from amtml_pl.config.key_roles import handed_to_recipes
from amtml_pl.config.network_keys import MAP_READING
from amtml_pl.config.overrides import hydra_literal
from amtml_pl.config.paths import config_directory
from amtml_pl.config.schema import KEYS
from amtml_pl.errors import UserError


def recipe(config: DictConfig, teacher: str) -> DictConfig:
    """Return the configuration that trains a teacher: its recipe, on the run's data.

    The network, its normalisation and input size, and the keys that the schema declares for recipes come from
    the run.

    Raises:
        UserError: if the teacher names no recipe, or one that does not exist.
    """
    node = config.teacher[teacher]
    if not node.recipe:
        raise UserError(
            f"teacher.{teacher} needs a file with network weights or a recipe that trains it (got neither).",
            fix=f"set teacher.{teacher}.weights.path=FILE or teacher_recipe={fitting_recipe(config)}",
        )
    try:
        own = composed(recipe_overrides(config, teacher))
    except (HydraException, ValueError) as error:  # ValueError for a number or null in a name's place
        raise UserError(f"teacher.{teacher}.recipe={node.recipe} cannot be composed: {error}") from error
    if any(other.get("recipe") == node.recipe for other in own.teacher.values()):
        raise UserError(
            f"teacher.{teacher}.recipe={node.recipe} is circular: the recipe uses a teacher that it trains.",
            fix=f"write 'override /teacher: []' into the defaults list of conf/experiment/{node.recipe}.yaml",
        )
    OmegaConf.set_struct(own, False)
    for path in handed_to_recipes():
        place, _, key = path.rpartition(".")
        given, taken = (OmegaConf.select(tree, place) if place else tree for tree in (config, own))
        if key in given:  # else the check of the run's own node reports it
            # Nodes with their interpolations, so that the folder's hash is that of the same command typed.
            taken[key] = deepcopy(given[key])
    handed = ("network", "stages", "hint", "input_size", "protocol_lr", *MAP_READING)
    own.student = {key: deepcopy(node._get_node(key)) for key in handed if key in node}
    own.dataset.mean, own.dataset.std = list(node.mean), list(node.std)
    own.seed = node.seed
    OmegaConf.set_struct(own, True)
    return own


def fitting_recipe(config: DictConfig) -> str:
    """Return the recipe of the run's data set, or that of a user's images."""
    own = f"{config.dataset.name}_teacher"
    return own if (config_directory() / "experiment" / f"{own}.yaml").is_file() else "own_images_teacher"


def composed(overrides: Sequence[str]) -> DictConfig:
    """Return the configuration that a command would compose; each is read from disk once."""
    return deepcopy(compose_once(GlobalHydra.instance().hydra, tuple(overrides)))


@lru_cache
def compose_once(_hydra: object, overrides: tuple[str, ...]) -> DictConfig:
    """Return the shared configuration; a run composes its teachers' recipes many times."""
    return compose("train", overrides=list(overrides))


def recipe_overrides(config: DictConfig, teacher: str) -> list[str]:
    """Return the overrides that compose a teacher's recipe, as typed."""
    node = config.teacher[teacher]
    preset = [] if config.debug is None else [f"debug={config.debug}"]
    return [f"experiment={node.recipe}", *node.recipe_overrides, *preset]


@dataclass(frozen=True)
class Recipe:
    """The training of a run's teacher; composed only on demand."""

    run: DictConfig
    teacher: str

    def config(self) -> DictConfig:
        """Return the configuration that `recipe` returns."""
        return recipe(self.run, self.teacher)

    @property
    def network(self) -> str:
        """Name of the network's YAML; the teacher's name if the command chose none."""
        return chosen(f"student@teacher.{self.teacher}") or self.teacher

    def command(self) -> str:
        """Return the command that trains the teacher alone, in the run's folder for it."""
        own, words = self.config(), recipe_overrides(self.run, self.teacher)
        dataset = chosen("dataset")
        choices = [f"student={self.network}", *([] if dataset is None else [f"dataset={dataset}"])]
        try:
            base = composed([*words, *choices])
            words += choices
        except HydraException:  # a choice of the run that the recipe's group does not have
            base = composed(words)
        if missing := [path for path, value in flattened(base, resolve=False).items() if value == "???"]:
            given = flattened(own, resolve=True)  # such as the folder of dataset=one_folder
            words += [f"{path}={hydra_literal(given[path])}" for path in missing]
            base = composed(words)
        return shlex.join(["python", "-m", "amtml_pl.train", *words, *override_differences(base, own)])


def chosen(group: str) -> str | None:
    """Return the command's choice of a group; None if it has none."""
    if not HydraConfig.initialized():
        return None
    choice = HydraConfig.get().runtime.choices.get(group)
    return None if choice is None else str(choice)


def override_differences(base: DictConfig, wanted: DictConfig) -> Iterator[str]:
    """Yield the overrides that turn one composed configuration into another."""
    old, new = flattened(base, resolve=False), flattened(wanted, resolve=False)
    if old == new:
        return
    old_values = flattened(base, resolve=True)
    for path, value in flattened(wanted, resolve=True).items():
        if path in KEYS and KEYS[path].identity == "never":
            continue
        if path not in old:
            yield f"++{path}={hydra_literal(value)}"
        elif old[path] != new[path] and old_values.get(path) != value:
            yield f"{path}={hydra_literal(value)}"
    yield from (f"~{path}" for path in dict.fromkeys(topmost(path, new) for path in old) if path)


def topmost(path: str, meant: Collection[str]) -> str:
    """Return the shortest prefix of a key path outside all wanted paths; else empty."""
    steps = path.split(".")
    beginnings = (".".join(steps[:count]) for count in range(1, len(steps) + 1))
    return next((b for b in beginnings if not any(f"{other}.".startswith(f"{b}.") for other in meant)), "")


def flattened(config: DictConfig | ListConfig, *, resolve: bool) -> dict[str, Any]:
    """Return every leaf by its key path; lists and empty mappings are leaves."""
    return dict(leaves_of(OmegaConf.to_container(config, resolve=resolve), ""))


def leaves_of(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of plain values, among them mappings whose keys have a dot."""
    if isinstance(node, dict) and node and not any("." in str(key) for key in node):
        for key, child in node.items():
            yield from leaves_of(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, node
