"""A composed configuration: where its files lie, and whether it is sound."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from amtml_pl.errors import UserError
from amtml_pl.recipe import has_own_weights, recipe
from amtml_pl.schema import (
    CACHE,
    CONSTRUCTED,
    DATASET,
    NODES,
    ROOT,
    Rule,
    fits,
    readable,
    rule_problems,
    suggestion,
    teacher_problems,
    trainer_problems,
)
from amtml_pl.targets import located

LIST_GROUPS = ("loss", "logger")


def config_directory() -> Path:
    """The folder of YAML files: inside the installed package, or the checkout's ``conf/``."""
    package = Path(__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def check(config: DictConfig) -> None:
    """Binds every node to its constructor and every value to its type, before any work.

    The recipes of all teachers without weights of their own are checked too.

    Raises:
        UserError: with all mistakes at once, each with its key path.
    """
    problems = [*mistakes(config)] or [*recipe_problems(config)]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        count = f"{len(problems)} mistake{'s' if len(problems) > 1 else ''}"
        raise UserError(f"The configuration has {count}:\n{listed}")


def check_command(values: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Holds what a command takes besides a run's configuration against its rules.

    Raises:
        UserError: with all mistakes at once.
    """
    if problems := [*rule_problems(plain(values), rules, "")]:
        raise UserError("\n".join(problems))


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values without omegaconf's containers."""
    contained: Any = OmegaConf.to_container(OmegaConf.create(dict(values)), resolve=True)
    return dict(contained)


def mistakes(config: DictConfig) -> list[str]:
    """What is wrong with a configuration itself; first its shape, since all else looks inside the nodes."""
    if misshapen := [*shape_problems(OmegaConf.to_container(config, resolve=False))]:
        return misshapen
    try:
        tree: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error.msg if hasattr(error, "msg") else error).splitlines()[0]
        return [f"it cannot be resolved: {error.full_key}: {reason}"]
    return [*value_problems(tree), *stub_problems(tree), *node_problems(tree, "")]


def recipe_problems(config: DictConfig) -> Iterator[str]:
    """Mistakes in the recipes of the teachers that have to be trained."""
    for name, node in config.teacher.items():
        if has_own_weights(config, str(name)):
            continue
        try:
            own = recipe(config, str(name))
        except UserError as error:
            yield str(error)
            continue
        for problem in mistakes(own) or [*recipe_problems(own)]:
            yield f"teacher.{name}.recipe={node.recipe}: {problem}"


def shape_problems(tree: Any) -> Iterator[str]:  # noqa: ANN401
    """Nodes that are no nodes, e.g. after ``trainer=null``."""
    for name, fix in NODES.items():
        node = tree.get(name)
        if not isinstance(node, Mapping):
            yield f"{name}={'null' if node is None else node}: expected its settings, e.g. {fix}"
        elif name in CONSTRUCTED and "_target_" not in node:
            yield f"{name} has no _target_: expected its settings, e.g. {fix}"
    if tree.get("loss") == {}:
        yield "loss=[]: expected at least one term, e.g. loss=[ce]"
    if not isinstance(tree.get("logger", {}), Mapping):
        yield f"logger={tree['logger']!r}: expected a list, e.g. logger=[]"


def value_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Values that no constructor binds: of the root, the data set, the teachers, and the trainer's limits."""
    yield from rule_problems(tree, ROOT, "", known=(*NODES, "logger"))
    for name, coef in tree["coef"].items():
        if not fits(coef, float):
            yield f"coef.{name}={coef!r}: expected a number"
    for name, path in tree["paths"].items():
        if not fits(path, str):
            yield f"paths.{name}={path!r}: expected a folder"
    yield from rule_problems(tree["dataset"], DATASET, "dataset")
    yield from rule_problems(tree["cache"], CACHE, "cache")
    for name, node in tree["teacher"].items():
        if isinstance(node, Mapping) and "network" in node:
            yield from teacher_problems(node, f"teacher.{name}")
    yield from trainer_problems(tree["trainer"])
    own_steps = tree["loop"]["_target_"] != "amtml_pl.distill.DistillModule"
    if own_steps and tree["trainer"].get("accumulate_grad_batches", 1) != 1:
        yield (
            f"trainer.accumulate_grad_batches={tree['trainer']['accumulate_grad_batches']}: the training "
            f"loop {tree['loop']['_target_']} steps its optimisers itself, in every batch; expected 1"
        )
    if own_steps and tree["trainer"].get("gradient_clip_val"):
        yield (
            f"trainer.gradient_clip_val={tree['trainer']['gradient_clip_val']}: the training loop "
            f"{tree['loop']['_target_']} steps its optimisers itself, where Lightning clips nothing; "
            "expected null"
        )
    if tree["data"].get("mixup") and tree["teacher"] and tree["teacher_source"] == "cached":
        yield (
            f"data.mixup={tree['data']['mixup']}: mixup blends images of a batch, and a cache holds what the "
            "teachers gave for single images; expected 0, or teacher_source=live: they see the blended ones"
        )


def stub_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Entries of a list group that only hold a setting for an entry that is not selected."""
    whole = {
        group: [name for name, node in tree.get(group, {}).items() if is_whole(node, mark)]
        for group, mark in (*((group, "_target_") for group in LIST_GROUPS), ("teacher", "network"))
    }
    for group, names in whole.items():
        for name in tree.get(group, {}):
            if name not in names:
                yield (
                    f"{group}.{name} has settings but is not selected: add it to {group}=[...], "
                    f"or remove the setting (selected: {names})"
                )


def is_whole(node: object, mark: str) -> bool:
    """Whether an entry of a list group has what only its own YAML file brings."""
    return isinstance(node, Mapping) and mark in node


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
        target = located(node["_target_"])
    except UserError as error:
        yield f"{path}._target_={node['_target_']!s:.80}: {error.what}; to fix it: {error.fix}"
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
        for name in sorted(required - arguments.keys() - given_by_entry_point(path)):
            yield f"{path}: {node['_target_']} needs the argument {name!r}"
    hints = type_hints(target)
    for name, value in arguments.items():
        hint = hints.get(name)
        if hint is not None and not holds_nodes(value) and not fits(value, hint):
            yield f"{path}.{name}={value!r}: expected {readable(hint)}"


def given_by_entry_point(path: str) -> set[str]:
    """Arguments that the entry points pass themselves, and YAML therefore leaves out."""
    if path == "data":
        return {"packed", "order_seed"}
    if path == "loop":
        return {"student", "terms", "coef", "num_classes", "optimizer"}
    return {"save_dir"} if path.startswith("logger.") else set()


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
