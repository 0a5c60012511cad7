"""A composed configuration: where its files lie, whether it is sound, what it is called, whom it trains."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra import compose
from hydra.errors import HydraException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from amtml_pl.errors import UserError

# Arguments that the entry points pass themselves, and YAML therefore leaves out.
GIVEN_BY_ENTRY_POINT = {"data": {"packed", "order_seed"}, "logger.tensorboard": {"save_dir"}}
LIST_GROUPS = ("loss", "logger")
# What does not change the result of a run, and therefore not the name of its folder.
NOT_PART_OF_THE_RUN = ("hydra", "prepare", "force", "debug", "logger")
# What acts only through the nodes that read it, where it is part of the run already.
READ_BY_OTHERS = ("temperature", "hint_stages", "last_stage", "teacher_recipe")


def config_directory() -> Path:
    """The folder of YAML files: inside the installed package, or the checkout's ``conf/``."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def register_resolvers() -> None:
    """Makes ``${amtml.run_folder:}`` known, which names the folder of a run before the run begins."""
    OmegaConf.register_new_resolver("amtml.run_folder", resolve_run_folder, replace=True)


def resolve_run_folder(*, _root_: DictConfig) -> str:
    """The run's folder, from the whole configuration that Hydra has composed."""
    told = _root_.hydra
    choices = told.runtime.choices
    label = str(choices.student) if _root_.role == "teacher" else run_label(list(told.overrides.task))
    try:
        return str(run_folder(_root_, choices.get("experiment"), label))
    except OmegaConfBaseException:  # `check` says what is wrong, once the run has begun
        return str(Path(_root_.paths.outputs).resolve() / "runs" / "invalid")


def check(config: DictConfig) -> None:
    """Binds every node to its constructor and every value to its type, before any work.

    Raises:
        UserError: with all mistakes at once, each with its key path.
    """
    try:
        tree: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error.msg if hasattr(error, "msg") else error).splitlines()[0]
        raise UserError(f"The configuration cannot be resolved: {error.full_key}: {reason}") from error
    problems = [*scalar_problems(tree), *stub_problems(tree), *node_problems(tree, "")]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
        raise UserError(f"The configuration has {count}:\n{listed}")


def scalar_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Root scalars outside their range."""
    temperature, seed = tree["temperature"], tree["seed"]
    if not is_number(temperature) or not temperature > 0:
        yield f"temperature={temperature!r}: expected a number above 0 (softmax(z / T)), e.g. temperature=4"
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        yield f"seed={seed!r}: expected a whole number, 0 or more"
    for name, coef in tree["coef"].items():
        if not is_number(coef):
            yield f"coef.{name}={coef!r}: expected a number"
    epochs = tree["trainer"].get("max_epochs")
    if not isinstance(epochs, int) or epochs < 1:
        yield f"trainer.max_epochs={epochs!r}: expected a whole number, 1 or more"


def is_number(value: object) -> bool:
    """Whether a YAML value is an int or float (True is not a number here)."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def stub_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Entries of a list group that only hold a setting for an entry that is not selected."""
    for group in LIST_GROUPS:
        for name, node in tree.get(group, {}).items():
            if not isinstance(node, Mapping) or "_target_" not in node:
                yield (
                    f"{group}.{name} has settings but is not selected: add it to {group}=[...], "
                    f"or remove the setting (selected: {selected(tree[group])})"
                )
    whole = [name for name, node in tree["teacher"].items() if "network" in node]
    for name in tree["teacher"].keys() - set(whole):
        yield (
            f"teacher.{name} has settings but is not selected: add it to teacher=[...], "
            f"or remove the setting (selected: {whole})"
        )


def selected(group: Mapping[str, Any]) -> list[str]:
    """The entries of a list group that are whole."""
    return [name for name, node in group.items() if isinstance(node, Mapping) and "_target_" in node]


def node_problems(node: object, path: str) -> Iterator[str]:
    """Mistakes in a node and in all nodes below it."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield from target_problems(node, path)
        for key, child in node.items():
            yield from node_problems(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for position, child in enumerate(node):
            yield from node_problems(child, f"{path}[{position}]")


def target_problems(node: Mapping[str, Any], path: str) -> Iterator[str]:
    """Whether a node's arguments fit the signature of its target."""
    try:
        target: Callable[..., Any] = get_object(node["_target_"])
    except Exception as error:
        yield f"{path}._target_={node['_target_']}: cannot be imported ({error})"
        return
    parameters = inspect.signature(target).parameters
    arguments = {str(key): value for key, value in node.items() if not str(key).startswith("_")}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in arguments.keys() - parameters.keys():
        if not takes_any:
            yield f"{path}.{name}: {node['_target_']} has no such argument{suggestion(name, parameters)}"
    required = {
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    if not node.get("_partial_", False):
        for name in sorted(required - arguments.keys() - GIVEN_BY_ENTRY_POINT.get(path, set())):
            yield f"{path}: {node['_target_']} needs the argument {name!r}"
    hints = type_hints(target)
    for name, value in arguments.items():
        hint = hints.get(name)
        if hint is not None and not holds_nodes(value) and not fits(value, hint):
            yield f"{path}.{name}={value!r}: expected {readable(hint)}"


def type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """The types of a callable's arguments; empty where they cannot be evaluated."""
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except Exception:  # foreign annotations may name what cannot be imported
        return {}


def holds_nodes(value: object) -> bool:
    """Whether a value is, or contains, a node that becomes an object of its own."""
    if isinstance(value, Mapping):
        return "_target_" in value or any(holds_nodes(child) for child in value.values())
    return isinstance(value, list) and any(holds_nodes(child) for child in value)


def fits(value: object, hint: Any) -> bool:  # noqa: ANN401
    """Whether a YAML value has the type of an argument: paths come as strings, tuples as lists."""
    conf = BeartypeConf(is_pep484_tower=True)
    candidates: list[object] = [value]
    if isinstance(value, str):
        candidates.append(Path(value))
    if isinstance(value, list):
        candidates.append(tuple(value))
    return any(is_bearable(candidate, hint, conf=conf) for candidate in candidates)


def readable(hint: object) -> str:
    """A type as a person would write it."""
    return hint.__name__ if inspect.isclass(hint) else re.sub(r"(typing|collections\.abc)\.", "", str(hint))


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """Asks whether a close known name was meant; lists the known ones where none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; it takes {sorted(known)}"


def run_folder(config: DictConfig, experiment: str | None, label: str) -> Path:
    """Where a run keeps everything: found again by repeating the command.

    Args:
        config: the composed configuration.
        experiment: its name; None where the command chose none.
        label: the readable part of the folder's name, the overrides or the network.

    Returns:
        ``<outputs>/runs/<experiment>/<label>-<hash>``; for a teacher ``<teachers>/<dataset>/<label>-<hash>``.
        A folder with that hash that exists already under another label is taken.
    """
    if config.role == "teacher":
        parent = Path(config.paths.teachers) / str(config.dataset.name)
    else:
        parent = Path(config.paths.outputs) / "runs" / (experiment or "no_experiment")
    digest = run_hash(config)
    for existing in sorted(parent.glob(f"*-{digest}")):
        return existing.resolve()
    return (parent / f"{label}-{digest}").resolve()


def run_hash(config: DictConfig) -> str:
    """Eight hexadecimal digits of everything that can change the result, and of nothing else.

    So a temperature that no selected term reads, or a coefficient of a term that is not selected, leaves
    the run what it was, and a finished teacher is found again after such a key has been added.
    """
    tree: Any = OmegaConf.to_container(config, resolve=False)
    tree["paths"] = {name: f"<{name}>" for name in config.paths}
    for key in NOT_PART_OF_THE_RUN:
        tree.pop(key, None)
    resolved: Any = OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    resolved["coef"] = {name: coef for name, coef in resolved["coef"].items() if name in resolved["loss"]}
    without_effect = READ_BY_OTHERS if config.teacher else (*READ_BY_OTHERS, "weighting", "weighting_lr")
    for key in without_effect:
        resolved.pop(key, None)
    # Keys are sorted, but the order of the teachers is the order of their outputs' columns.
    text = json.dumps([resolved, list(config.teacher)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run_label(overrides: list[str]) -> str:
    """The overrides of a command as part of a folder's name."""
    told = [
        o
        for o in overrides
        if re.split(r"[.=]", o.lstrip("+~"))[0] not in ("experiment", "paths", *NOT_PART_OF_THE_RUN)
    ]
    words = [re.sub(r"[^A-Za-z0-9_.]+", "-", override).strip("-") for override in told]
    return "_".join(words)[:80] or "default"


def recipe(config: DictConfig, teacher: str) -> DictConfig:
    """The configuration that trains a teacher: its own experiment, on the run's data.

    Only the network, the data (source, splits and their seed) and the paths come from the run; its
    ``seed``, ``trainer``, ``loss``, ``coef``, optimiser, views and augmentation stay the recipe's.

    Raises:
        UserError: if the teacher names no recipe, or one that does not exist.
    """
    node = config.teacher[teacher]
    if not node.recipe:
        raise UserError(
            f"teacher.{teacher} has neither weights nor a recipe to train it.",
            fix=f"teacher.{teacher}.weights.path=FILE, or teacher.{teacher}.recipe=cifar10_teacher",
        )
    try:
        own = compose("train", overrides=recipe_overrides(config, teacher))
    except HydraException as error:
        raise UserError(f"teacher.{teacher}.recipe={node.recipe} cannot be composed: {error}") from error
    OmegaConf.set_struct(own, False)
    # Copied with their interpolations, so that the folder's hash is that of the same command typed.
    own.student, own.dataset, own.paths = (
        deepcopy(node.network),
        deepcopy(config.dataset),
        deepcopy(config.paths),
    )
    for key in DATA_OF_THE_RUN:
        own.data[key] = config.data[key]
    own.seed = node.seed
    own.prepare, own.debug = config.prepare, config.debug
    OmegaConf.set_struct(own, True)
    return own


DATA_OF_THE_RUN = ("seed", "val_size", "train_size", "num_workers")


def recipe_overrides(config: DictConfig, teacher: str) -> list[str]:
    """What composes a teacher's recipe, as one would type it."""
    node = config.teacher[teacher]
    return [f"experiment={node.recipe}", *node.recipe_overrides]
