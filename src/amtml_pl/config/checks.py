"""Whether a composed configuration is sound, in two stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from amtml_pl.config.allowed_targets import users_names
from amtml_pl.config.build import Config, plain, resolved
from amtml_pl.config.constructors import device_problems, loop_problems, node_problems
from amtml_pl.config.key import Key
from amtml_pl.config.schema import DATASET
from amtml_pl.config.teacher_recipe import has_own_weights, recipe
from amtml_pl.config.value_origin import with_origin
from amtml_pl.config.values import declared_problems, shape_problems, stub_problems, value_problems
from amtml_pl.errors import UserError

MISSING = "???"  # the value of a key that the command must give


def check(config: Config) -> None:
    """Holds every value against its rule and binds every node to its constructor, before any work.

    Raises:
        UserError: with all mistakes of the first stage that has some.
    """
    check_values(config)
    check_constructors(config)


def check_values(config: Config) -> None:
    """The first stage, of what can be said of plain values; neither torch nor a network is imported.

    The recipes of all teachers without weights of their own are checked too, here and in the second stage.

    Raises:
        UserError: with all mistakes at once, each with its key path and where it was written.
    """
    refuse([*value_mistakes(config)] or [*recipe_problems(config, value_mistakes)])


def check_constructors(config: Config) -> None:
    """The second stage, of a configuration that has passed the first: arguments, their types, the devices.

    Raises:
        UserError: with all mistakes at once, each with its key path and where it was written.
    """
    refuse([*constructor_mistakes(config)] or [*recipe_problems(config, constructor_mistakes)])


def refuse(problems: list[str]) -> None:
    """Lists mistakes.

    Raises:
        UserError: if there are any.
    """
    if problems:
        listed = "\n".join(f"  - {with_origin(problem)}" for problem in problems)
        count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
        raise UserError(f"The configuration has {count}:\n{listed}")


def check_command(values: Mapping[str, Any], keys: Mapping[str, Key]) -> None:
    """Check what a command takes besides a run's configuration.

    Args:
        values: what was given.
        keys: what each may be.

    Raises:
        UserError: with all mistakes at once.
    """
    if problems := [*declared_problems(values, keys, "")]:
        raise UserError("\n".join(problems))


def refuse_no_run(folder: str | None, purpose: str) -> None:
    """Raise a UserError for a command without a run."""
    if not folder:
        raise UserError(
            f"There is no run to {purpose}.", fix="run=FOLDER: what amtml_pl.train printed at its end"
        )


def dataset_settings(config: Config, paths: Mapping[str, Path], num_classes: int) -> dict[str, Any]:
    """Return the settings of the data set that `evaluate` takes in the place of the run's own.

    Args:
        config: of the command.
        paths: the roots that its interpolations see.
        num_classes: where the command says nothing of it.

    Raises:
        UserError: if a setting is missing, or is not what its key may be.
    """
    own = plain(config, resolve=False)
    own["paths"] = {name: str(path) for name, path in paths.items()}
    if own["dataset"].get("num_classes") == MISSING:
        own["dataset"]["num_classes"] = num_classes
    settings: dict[str, Any] = resolved(Config(own)["dataset"])
    if wrong := [*declared_problems(settings, DATASET, "dataset")]:
        raise UserError("\n".join(wrong))
    return settings


def value_mistakes(config: Config) -> list[str]:
    """What is wrong with the values; first the shape, since all else looks inside the nodes."""
    if misshapen := [*shape_problems(plain(config, resolve=False))]:
        return misshapen
    try:
        tree = resolved(config)
    except UserError as error:
        return [error.what]
    return [*value_problems(tree), *stub_problems(tree)]


def constructor_mistakes(config: Config) -> list[str]:
    """What does not fit the constructors, or the machine."""
    users_names()  # a mistake in it is one message, and not one for each constructor
    tree = plain(config)
    return [*node_problems(tree, ""), *loop_problems(tree), *device_problems(tree["trainer"])]


def recipe_problems(config: Config, mistakes: Callable[[Config], list[str]]) -> Iterator[str]:
    """Mistakes in the recipes of the teachers that have to be trained."""
    for name, node in config.teacher.items():
        if has_own_weights(config, str(name)):
            continue
        try:
            own = recipe(config, str(name))
        except UserError as error:
            yield str(error)
            continue
        for problem in mistakes(own) or [*recipe_problems(own, mistakes)]:
            yield f"teacher.{name}.recipe={node.recipe}: {problem}"
