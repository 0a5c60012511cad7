"""Find what does not fit the constructors in a configuration, or the machine."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from amtml_pl.config.allowed_targets import argument_problems, located, target_nodes
from amtml_pl.config.rules import fits, readable, suggestion
from amtml_pl.errors import UserError

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
# Arguments that entry points pass, and YAML leaves out.
GIVEN = {
    "data": {"packed", "order_seed"},
    "loop": {"student", "terms", "coef", "num_classes", "optimizer"},
    "logger": {"save_dir"},
}


def node_problems(node: object, path: str) -> Iterator[str]:
    """Yield mistakes in a node and in all nodes below it."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield from target_problems(node, path)
        for key, child in node.items():
            yield from node_problems(child, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for position, child in enumerate(node):
            yield from node_problems(child, f"{path}[{position}]")


def target_problems(node: Mapping[str, Any], path: str) -> Iterator[str]:
    """Yield arguments of a node that do not fit the signature of its target."""
    try:
        target = located(node["_target_"])
    except UserError as error:
        yield f"{path}._target_={node['_target_']!s:.80}: {error.what}; to fix it: {error.fix}"
        return
    yield from (f"{path}: {problem}" for problem in argument_problems(node))
    chain, takes_any = accepting_functions(target)
    signatures = [inspect.signature(each).parameters for each in (target, *chain)]
    known = {n: p for each in signatures for n, p in each.items() if n != "self" and p.kind in BY_NAME}
    arguments = {str(key): value for key, value in node.items() if not str(key).startswith("_")}
    for name in () if takes_any else arguments.keys() - known.keys():
        yield f"{path}.{name}: {node['_target_']} has no such argument{suggestion(name, known)}"
    if not node.get("_partial_", False):
        required = {n for n, p in signatures[0].items() if p.kind in BY_NAME and p.default is p.empty}
        given = GIVEN.get("logger" if path.startswith("logger.") else path, set())
        for name in sorted(required - arguments.keys() - given):
            yield f"{path}: {node['_target_']} needs the argument {name!r}"
    hints = {name: hint for each in reversed(chain) for name, hint in type_hints(each).items()}
    for name, value in arguments.items():
        hint = hints.get(name)
        if (
            isinstance(value, list)
            and any(target_nodes(value))
            and not all(isinstance(v, Mapping) for v in value)
        ):
            yield f"{path}.{name} mixes entries with and without _target_ (expected _target_ in each)"
        if hint is not None and not fits(value, hint) and not becomes_objects(value, hint):
            yield f"{path}.{name}={value!r}: expected {readable(hint)}"


def accepting_functions(target: Callable[..., Any]) -> tuple[list[Callable[..., Any]], bool]:
    """Return the functions that take a target's arguments, and if they take any.

    They are the ``__init__`` of a class, and those of its bases while each passes all its ``**kwargs`` on.
    """
    bases = inspect.getmro(target)[:-1] if inspect.isclass(target) else ()  # without object
    owners = [base for base in bases if "__init__" in vars(base)]
    own = [vars(base)["__init__"] for base in owners] or [target]
    for position, function in enumerate(own):
        # The **kwargs of nn.Module raise a TypeError. By the class, as a compiler replaces the function.
        if owners and owners[position].__module__ == "torch.nn.modules.module":
            return own[:position], False
        parameters = inspect.signature(function).parameters.values()
        extra = next((p.name for p in parameters if p.kind is p.VAR_KEYWORD), None)
        if extra is None or not passes_to_base(function, extra):
            return own[: position + 1], extra is not None
    return own, False


def passes_to_base(function: Callable[..., Any], extra: str) -> bool:
    """Return True if an ``__init__`` only passes its ``**extra`` to its base."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function))))
    except (OSError, TypeError):  # without source
        return False
    nodes = [*ast.walk(tree)]
    calls = [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "super().__init__"]
    passed = [keyword.value for call in calls for keyword in call.keywords if keyword.arg is None]
    uses = [node for node in nodes if isinstance(node, ast.Name) and node.id == extra]
    return bool(uses) and all(use in passed for use in uses)


def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of a function's arguments, without those that cannot be evaluated."""
    for_checkers = {**vars(collections.abc), **vars(typing)}  # foreign code imports these for checkers only
    function = inspect.unwrap(function)
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        one = SimpleNamespace(__annotations__={name: annotation})
        with suppress(Exception):
            hints |= typing.get_type_hints(one, {**for_checkers, **getattr(function, "__globals__", {})})
    return hints


def becomes_objects(value: object, hint: object) -> bool:
    """Return True if nodes in a value become objects of a type unknown before."""
    is_group = isinstance(value, Mapping) and "_target_" not in value
    return any(target_nodes(value)) and not (is_group and inspect.isclass(hint))


def loop_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield trainer options and schedules that a loop with its own optimiser steps cannot use."""
    name, trainer = tree["loop"]["_target_"], tree["trainer"]
    try:
        if not getattr(located(name), "steps_itself", False):
            return
    except UserError:  # which `node_problems` reports
        return
    for key, off in (("accumulate_grad_batches", (1,)), ("gradient_clip_val", (None, 0))):
        if trainer.get(key, off[0]) not in off:
            yield (
                f"trainer.{key}={trainer[key]} is not supported: the loop {name} steps its optimisers itself "
                f"(expected {'null' if off[0] is None else off[0]})"
            )
    if "steps_per_epoch" in tree["scheduler"]:
        yield (
            f"scheduler={tree['scheduler']['_target_'].rpartition('.')[2]} changes the learning rate after "
            f"every step: the loop {name} steps its optimisers itself (expected a schedule of epochs, e.g. "
            "scheduler=cosine)"
        )


def device_problems(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield errors for an accelerator, or memory of one, that this machine does not have."""
    import torch  # only here: the checks before need none

    accelerator, data = tree["trainer"].get("accelerator"), tree["data"]
    found = torch.cuda.is_available() or (accelerator == "gpu" and torch.backends.mps.is_available())
    if accelerator in ("gpu", "cuda") and not found:
        several = "; several processes: trainer=ddp_cpu" if tree["trainer"].get("devices") != 1 else ""
        yield (
            f"trainer.accelerator={accelerator}: this machine has no usable GPU "
            f"(expected auto or cpu{several})"
        )
    if data.get("device") == "device" and (accelerator == "cpu" or not torch.cuda.is_available()):
        yield "data.device=device: the run does not train on a CUDA device (expected auto or cpu)"
    if data.get("device") == "device" and data.get("num_workers"):
        yield f"data.num_workers={data['num_workers']}: data.device=device needs 0 worker processes"
