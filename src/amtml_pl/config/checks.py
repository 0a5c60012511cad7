"""Check a composed configuration, in two stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from amtml_pl.config.allowed_targets import users_names
from amtml_pl.config.build import Config, plain_values, resolved
from amtml_pl.config.constructors import device_problems, loop_problems, node_problems
from amtml_pl.config.data_keys import DATASET
from amtml_pl.config.key import Key
from amtml_pl.config.network_keys import has_own_weights
from amtml_pl.config.teacher_recipe import recipe
from amtml_pl.config.value_origin import with_origin
from amtml_pl.config.values import declared_problems, shape_problems, stub_problems, value_problems
from amtml_pl.errors import UserError
from amtml_pl.system.console import counted


def check(config: Config) -> None:
    """Check every value by its rule, then every node by its constructor."""
    check_values(config)
    check_constructors(config)


def check_values(config: Config) -> None:
    """Check plain values, also of the teachers' recipes, without importing torch.

    Raises:
        UserError: with all mistakes at once, each with its key path and where it was written.
    """
    refuse([*value_mistakes(config)] or [*recipe_problems(config, value_mistakes)])


def check_constructors(config: Config) -> None:
    """Check arguments, their types and the devices, as `check_values` does for plain values."""
    refuse([*constructor_mistakes(config)] or [*recipe_problems(config, constructor_mistakes)])


def refuse(problems: list[str]) -> None:
    """Raise a UserError with all mistakes of a list, if it has any."""
    if problems:
        listed = "\n".join(f"  - {with_origin(problem)}" for problem in problems)
        raise UserError(f"The configuration has {counted(len(problems), 'mistake')}:\n{listed}")


def check_command(values: Mapping[str, Any], keys: Mapping[str, Key]) -> None:
    """Check the values of a command's own keys; raise a UserError with all mistakes."""
    if problems := [*declared_problems(values, keys, "")]:
        raise UserError("\n".join(problems))


def dataset_settings(config: Config, paths: Mapping[str, Path], num_classes: int) -> dict[str, Any]:
    """Return the checked settings of the data set that `evaluate` uses instead of the run's."""
    own = plain_values(config, resolve=False)
    own["paths"] = {name: str(path) for name, path in paths.items()}
    if own["dataset"].get("num_classes") == "???":  # not given by the command
        own["dataset"]["num_classes"] = num_classes
    settings: dict[str, Any] = resolved(Config(own)["dataset"])
    if wrong := [*declared_problems(settings, DATASET, "dataset")]:
        raise UserError("\n".join(wrong))
    return settings


def value_mistakes(config: Config) -> list[str]:
    """Return mistakes in the values; wrong shapes of nodes alone if there are any."""
    if misshapen := [*shape_problems(plain_values(config, resolve=False))]:
        return misshapen
    try:
        tree = resolved(config)
    except UserError as error:
        return [error.what]
    return [*value_problems(tree), *stub_problems(tree)]


def constructor_mistakes(config: Config) -> list[str]:
    """Return mistakes in the arguments of constructors and in the devices."""
    users_names()  # else a mistake in it is reported for each constructor
    tree = plain_values(config)
    return [*node_problems(tree, ""), *loop_problems(tree), *device_problems(tree)]


def recipe_problems(config: Config, mistakes: Callable[[Config], list[str]]) -> Iterator[str]:
    """Yield mistakes in the recipes of the teachers that must be trained."""
    for name, node in config.teacher.items():
        if has_own_weights(node):
            continue
        try:
            own = recipe(config, str(name))
        except UserError as error:
            yield str(error)
            continue
        for problem in mistakes(own) or [*recipe_problems(own, mistakes)]:
            yield f"teacher.{name}.recipe={node.recipe}: {problem}"
