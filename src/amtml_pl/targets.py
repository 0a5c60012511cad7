"""What a ``_target_`` may name: a configuration can come from anywhere, and must not call whatever it likes.

A name is held against the list below before anything is imported. What it leads to is then held against the
list too, by the module that it was defined in: a module hands on everything that it imports itself.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from amtml_pl.errors import UserError

VARIABLE = "AMTML_TARGETS"
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class Listed:
    """Names that a ``_target_`` may begin with.

    Attributes:
        names: a module or a package, whose public names are meant, or one name in full.
        origins: where else what they lead to may be defined; a private module only where it is named in full.
        functions: whether they may be functions, and not only classes.
    """

    names: tuple[str, ...]
    origins: tuple[str, ...] = ()
    functions: bool = True


# Rooms with parts of a run. Not all of this package: elsewhere are functions that write and remove files.
OWN_ROOMS = ("augment", "augment_color", "dashboard.logger", "data", "datasets", "distill", "loops", "losses",
             "models", "released", "weighting")  # fmt: skip
LIGHTNING = ("loggers", "plugins", "profilers", "strategies")
LISTED = (
    Listed(tuple(f"amtml_pl.{room}" for room in OWN_ROOMS)),
    Listed(("torch.nn", "torch.optim"), functions=False),
    Listed(("torchvision.models",)),
    Listed(("timm.create_model",), origins=("timm.models._factory",)),
    Listed(("timm.models",)),
    Listed(("pytorch_lightning.Trainer",), origins=("pytorch_lightning.trainer",), functions=False),
    Listed(
        tuple(f"pytorch_lightning.{room}" for room in LIGHTNING),
        origins=tuple(f"lightning_fabric.{room}" for room in LIGHTNING),
        functions=False,
    ),
)


def located(target: object) -> Callable[..., Any]:
    """The class or function that a ``_target_`` names, imported only where its name is allowed.

    Raises:
        UserError: if the name is not allowed, or leads to nothing, to no class or function, or to one that
            was defined in a package that is not allowed.
    """
    name, listed = allowed_name(target)
    found = resolved(name)
    if not inspect.isclass(found) and not (listed.functions and inspect.isroutine(found)):
        raise UserError(
            f"{name} is a {type(found).__name__}, expected a class{' or a function' * listed.functions}",
            fix="name what is to be constructed",
        )
    origin = str(getattr(found, "__module__", None))
    own = (*listed.names, *listed.origins, *users_packages())
    hidden = listed in LISTED and origin not in listed.origins and is_private(origin, found)
    if hidden or not any(lies_in(origin, package) for package in own):
        raise UserError(
            f"{name} is {origin}.{getattr(found, '__qualname__', '?')}, which a _target_ may not name",
            fix=extension(origin),
        )
    return found


def allowed_name(target: object) -> tuple[str, Listed]:
    """A ``_target_`` and what allows it; nothing is imported.

    Raises:
        UserError: if nothing allows it.
    """
    if not isinstance(target, str) or not NAME.fullmatch(target):
        shown = repr(target) if isinstance(target, str) else f"a {type(target).__name__}"
        raise UserError(f"it is {shown:.80}, expected a dotted name", fix="package.module.Class")
    for listed in (Listed(users_packages()), *LISTED):
        if any(lies_in(target, name) for name in listed.names):
            return target, listed
    known = ", ".join(name for listed in LISTED for name in listed.names)
    raise UserError(
        f"{target} may not be named: a configuration is not trusted to call what it likes (allowed are "
        f"{known})",
        fix=extension(target),
    )


def refuse_foreign_targets(node: object) -> None:
    """Holds every ``_target_`` in plain nested values against the list, and imports what it allows.

    Raises:
        UserError: at the first that is not allowed.
    """
    for target in targets_in(node):
        try:
            located(target)
        except UserError as error:
            raise UserError(f"_target_={target!s:.80}: {error.what}.", fix=error.fix) from None


def targets_in(node: object) -> Iterator[object]:
    """Every ``_target_`` in plain nested values."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        children: Any = node.values()
    else:
        children = node if isinstance(node, list | tuple) else ()
    for child in children:
        yield from targets_in(child)


def users_packages() -> tuple[str, ...]:
    """The packages that the user trusts, from the environment: a YAML could not be asked.

    Raises:
        UserError: if the variable holds anything but names.
    """
    names = tuple(filter(None, (name.strip() for name in os.environ.get(VARIABLE, "").split(","))))
    if wrong := [name for name in names if not NAME.fullmatch(name)]:
        raise UserError(
            f"{VARIABLE} names {wrong[0]!r}, expected packages or modules, separated by commas",
            fix=f"export {VARIABLE}=mypackage,other.module",
        )
    return names


def resolved(name: str) -> object:
    """What a dotted name leads to, without passing through a module that another one has merely imported.

    Raises:
        UserError: if it leads to nothing, or through such a module.
    """
    first, *parts = name.split(".")
    found, path = imported(first), first
    for part in parts:
        path = f"{path}.{part}"
        found = (
            member(found, part)
            if not isinstance(found, ModuleType) or hasattr(found, part)
            else imported(path)
        )
        if isinstance(found, ModuleType) and found.__name__ != path:
            raise UserError(
                f"{path} is the module {found.__name__}", fix="name what is defined where it lies"
            )
    return found


def imported(path: str) -> object:
    """A module.

    Raises:
        UserError: if there is none of that name, or it fails, in whatever way.
    """
    try:
        return import_module(path)
    except Exception as error:
        raise UserError(f"cannot be imported ({error})", fix="name what exists") from error


def member(found: object, name: str) -> object:
    """What lies in a class or a module under a name.

    Raises:
        UserError: if nothing does.
    """
    try:
        return getattr(found, name)
    except Exception as error:
        raise UserError(f"cannot be imported ({error})", fix="name what exists") from error


def lies_in(name: str, package: str) -> bool:
    """Whether a dotted name is a package's or lies below it."""
    return name == package or name.startswith(f"{package}.")


def is_private(origin: str, found: object) -> bool:
    """Whether something is no public name of a public module: it may do more than construct."""
    name = str(getattr(found, "__qualname__", "_"))
    return "." in name or any(part.startswith("_") for part in (*origin.split("."), name))


def extension(name: str) -> str:
    """How a user allows a package that they trust; of one that is listed in part, the one name alone."""
    first = name.partition(".")[0]
    if first in sys.stdlib_module_names:
        return "name a part of a run; nothing of Python's own library is one"
    in_part = any(lies_in(listed, first) for package in LISTED for listed in package.names)
    return f"where you trust it: export {VARIABLE}={name if in_part else first}"
