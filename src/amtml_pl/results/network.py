"""Build a network for given weights, without fetching its pretrained ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from amtml_pl.config.allowed_targets import group_problems
from amtml_pl.config.build import build_object
from amtml_pl.config.constructors import node_problems
from amtml_pl.errors import UserError

# By the beginning of a _target_: arguments that load weights, with the value that loads none.
PRETRAINED_ARGUMENTS: Mapping[str, Mapping[str, object]] = {
    "": {"pretrained": False},
    "torchvision.": {"weights": None},
}


def build_untrained(node: Mapping[str, Any]) -> nn.Module:
    """Build a network from plain values, as in ``conf/student``, without pretrained weights.

    Raises:
        UserError: if its constructor is not listed, refuses the arguments, or fails.
    """
    bare = without_pretrained_weights(node)
    if problems := [*group_problems(bare, ("student",), "network"), *node_problems(bare, "network")]:
        raise UserError(f"The saved network cannot be built: {'; '.join(problems[:3])}.")
    built = build_object(bare)
    if not isinstance(built, nn.Module):
        raise UserError(
            f"The saved network {dict(node)!s:.200} is a {type(built).__name__}, not an nn.Module."
        )
    return built


def without_pretrained_weights(node: Any) -> Any:
    """Return plain nested values in which no network loads pretrained weights."""
    if isinstance(node, Mapping):
        target = str(node.get("_target_", ""))
        idle = {
            key: value
            for beginning, values in PRETRAINED_ARGUMENTS.items()
            if "_target_" in node and target.startswith(beginning)
            for key, value in values.items()
            if key in node
        }
        return {key: without_pretrained_weights(value) for key, value in node.items()} | idle
    return [without_pretrained_weights(each) for each in node] if isinstance(node, list) else node
