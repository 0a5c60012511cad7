"""List the constructors that a ``_target_`` may name, as a configuration is not trusted.

Our own are those that the installed ``conf/`` names, so that a new one needs no entry here. torch,
torchvision and timm list theirs; Lightning's stand below. A user adds exact names by an environment variable.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any

from amtml_pl.config.paths import config_directory
from amtml_pl.errors import UserError

VARIABLE = "AMTML_TARGETS"
NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
OWN = re.compile(r"^[^#\n]*_target_:\s*(amtml_pl(?:\.\w+)+)", re.MULTILINE)
# Folders of conf/ whose files name our own constructors; conf/hydra and conf/train.yaml name Hydra's plugins.
GROUPS = (
    "augment",
    "callbacks",
    "data",
    "dataset",
    "logger",
    "loop",
    "loss",
    "scheduler",
    "student",
    "weighting",
)
TIMM = "timm.create_model"
TORCHVISION = "torchvision.models."
LOGGERS = ("CSVLogger", "TensorBoardLogger")  # conf/logger has those of services
CALLBACKS = ("DeviceStatsMonitor", "LearningRateMonitor", "Timer")  # conf/callbacks has early stopping
LIGHTNING = (
    "pytorch_lightning.Trainer",
    *(f"pytorch_lightning.callbacks.{name}" for name in CALLBACKS),
    *(f"pytorch_lightning.loggers.{name}" for name in LOGGERS),
    *(f"pytorch_lightning.profilers.{name}Profiler" for name in ("Advanced", "PyTorch", "Simple")),
)
# Text that a network may take: names of modules, layers and weights. No path, URL, interpolation or code.
NAMES = re.compile(r"(\w[\w-]*(\.\w[\w-]*)*)?")
# Arguments of torchvision's and timm's builders that read, write or download what a configuration names.
FILES = ("cache_dir", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")
# Positions escape the check by name; timm makes networks of feature maps by code that it generates.
UNCHECKED = ("_args_", "feature_cls", "features_only")


def located(target: object) -> Callable[..., Any]:
    """Return the class or function that a ``_target_`` names, imported only if it is listed.

    Raises:
        UserError: if the name is not listed, cannot be imported, or is neither a class nor a function.
    """
    if not isinstance(target, str) or not NAME.fullmatch(target):
        shown = repr(target) if isinstance(target, str) else f"a value of type {type(target).__name__}"
        what = f"the constructor is not a dotted name (got {shown:.80}, expected package.module.Class)"
        raise UserError(what, fix="write _target_: package.module.Class")
    if target not in users_names() and not is_listed(target):
        close = similar_constructor(target)
        meant = f"; did you mean {close!r}?" if close else " (docs/security.md lists those that are)"
        raise UserError(f"{target} is not an allowed constructor{meant}", fix=extension(target))
    found = imported_object(target)
    if not inspect.isclass(found) and not inspect.isroutine(found):
        raise UserError(
            f"{target} is not callable (got a {type(found).__name__}, expected a class or a function)",
            fix="write _target_: package.module.Class",
        )
    return found


def similar_constructor(name: str) -> str | None:
    """Return the listed constructor with the most similar name; None without one."""
    if name.startswith(TORCHVISION):
        found = difflib.get_close_matches(name.removeprefix(TORCHVISION), torchvision_builders(), 1)
        return f"{TORCHVISION}{found[0]}" if found else None
    listed = (*own_constructors(*GROUPS), TIMM, *LIGHTNING)
    return next(iter(difflib.get_close_matches(name, listed, 1, cutoff=0.8)), None)


def is_listed(name: str) -> bool:
    """Return True if a dotted name is one of the listed constructors."""
    if name in LIGHTNING or name in (*own_constructors(*GROUPS), TIMM):
        return True
    return name in torch_constructors() if name.startswith("torch.") else is_torchvision_builder(name)


@lru_cache
def own_constructors(*groups: str) -> frozenset[str]:
    """Return our constructors that the files of some folders of ``conf/`` name."""
    files = (file for group in groups for file in (config_directory() / group).rglob("*.yaml"))
    return frozenset(name for file in files for name in OWN.findall(file.read_text(encoding="utf-8")))


@lru_cache
def torch_constructors() -> frozenset[str]:
    """Return the names of torch's optimisers and of their schedules."""
    from torch import optim  # only here: the first stage of the check needs no torch

    kinds = ((optim, optim.Optimizer), (optim.lr_scheduler, optim.lr_scheduler.LRScheduler))
    return frozenset(
        f"{module.__name__}.{name}"
        for module, base in kinds
        for name, found in vars(module).items()
        if inspect.isclass(found) and issubclass(found, base) and found is not base and name[0] != "_"
    )


def is_torchvision_builder(name: str) -> bool:
    """Return True if torchvision lists a name among its classifiers."""
    return name.startswith(TORCHVISION) and name.removeprefix(TORCHVISION) in torchvision_builders()


def torchvision_builders() -> list[str]:
    """Return the names of torchvision's classifiers."""
    from torchvision import models  # only here: as above

    builders: list[str] = models.list_models(module=models)
    return builders


def users_names() -> tuple[str, ...]:
    """Return the names that the user trusts, from an environment variable, never from YAML."""
    names = tuple(filter(None, (name.strip() for name in os.environ.get(VARIABLE, "").split(","))))
    if wrong := [name for name in names if not NAME.fullmatch(name) or "." not in name]:
        raise UserError(
            f"{VARIABLE} has the wrong name {wrong[0]!r} (expected dotted names, separated by commas).",
            fix=f"export {VARIABLE}=mypackage.MyNetwork,other.module.MyLoss",
        )
    return names


def extension(name: str) -> str:
    """Return how a user can allow a name."""
    first = name.partition(".")[0]
    if first in sys.stdlib_module_names:
        return "use an allowed constructor (docs/security.md); the standard library has none"
    if first in ("amtml_pl", "hydra", "pytorch_lightning", "timm", "torch", "torchvision"):
        return "use an allowed constructor (docs/security.md)"
    return f"allow it if you trust its code: export {VARIABLE}={name}"


def refuse_foreign_targets(node: object) -> None:
    """Raise a UserError for a ``_target_`` that is not an allowed constructor; import the others."""
    nodes = [*target_nodes(node)]
    for target in (each["_target_"] for each in nodes):
        try:
            located(target)
        except UserError as error:
            raise UserError(f"_target_={target!s:.80}: {error.what}.", fix=error.fix) from None
    for each in nodes:
        for problem in argument_problems(each):
            raise UserError(f"{problem}.")


def target_nodes(node: object) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping with a ``_target_`` in plain nested values, outer ones first."""
    if isinstance(node, Mapping) and "_target_" in node:
        yield node
    children = node.values() if isinstance(node, Mapping) else node if isinstance(node, list | tuple) else ()
    for child in children:
        yield from target_nodes(child)


def argument_problems(node: Mapping[str, Any]) -> Iterator[str]:
    """Yield errors for a network's arguments other than numbers, names and lists of these.

    The signatures of torchvision's and timm's builders do not restrict them, as other constructors' do. Our
    networks take networks too.
    """
    target = node["_target_"]
    ours = target in own_constructors("student")
    if target in users_names() or not (ours or target == TIMM or target.startswith(TORCHVISION)):
        return
    for key, value in node.items():
        if key in (*FILES, *UNCHECKED):
            instead = "; load network weights with teacher.NAME.weights.path" if key in FILES else ""
            yield f"the argument {key!r} of {target} is not allowed{instead}"
        elif not (is_plain(value) or (ours and not any(group_problems(value, ("student",), "")))):
            yield f"{key}={value!r:.80} is not allowed in {target} (expected numbers, names, or their lists)"
    if target == TIMM:
        yield from timm_problems(str(node.get("model_name")))


def timm_problems(name: str) -> Iterator[str]:
    """Yield an error for a name that timm does not list."""
    import timm  # only here: the first stage of the check needs no torch

    listed = timm.list_models(pretrained=True) if "." in name else timm.list_models()
    if name not in listed:
        close = difflib.get_close_matches(name, listed, 3)
        meant = f"; similar names: {', '.join(close)}" if close else ""
        yield f"timm has no model_name={name!r:.80}{meant} (timm.list_models() lists the names)"


def is_plain(value: object) -> bool:
    """Return True for a number, a name, None, or a list of these."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return bool(NAMES.fullmatch(value)) if isinstance(value, str) else isinstance(value, int | float | None)


def group_problems(node: object, groups: Sequence[str], path: str) -> Iterator[str]:
    """Yield an error for each ``_target_`` outside some groups of ``conf/``.

    Args:
        node: plain nested values that will be built.
        groups: such as ``("student",)``, which includes torchvision's and timm's networks.
        path: of the node in its configuration, for the message.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        yield f"{path} has no _target_, which names the constructor"
    for each in target_nodes(node):
        target = str(each["_target_"])
        network = "student" in groups and (target == TIMM or is_torchvision_builder(target))
        if not network and target not in (*own_constructors(*groups), *users_names()):
            yield (
                f"{path}._target_={target:.80} is not an allowed constructor here (expected one from "
                f"conf/{groups[0]})"
            )
        for key in each:  # such as _args_ and _partial_, by which Hydra calls otherwise than by name
            if str(key).startswith("_") and key != "_target_":
                yield f"{path} has the key {key}, which is not allowed (expected arguments by name)"


def imported_object(name: str) -> Any:
    """Return the object of a dotted name; raise a UserError if it cannot be imported."""
    path, *parts = name.split(".")
    try:
        found: Any = import_module(path)
        for part in parts:
            path = f"{path}.{part}"
            if not hasattr(found, part):  # a module that its package has not imported yet
                import_module(path)
            found = getattr(found, part)
    except Exception as error:
        raise UserError(f"{name} cannot be imported ({error})", fix="correct the name") from error
    return found
