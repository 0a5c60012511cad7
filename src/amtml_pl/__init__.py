"""Adaptive multi-teacher, multi-level knowledge distillation with PyTorch Lightning and Hydra."""

from __future__ import annotations

from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amtml_pl.errors import Interrupted, UserError
    from amtml_pl.own_images import distill
    from amtml_pl.results.distilled import Distilled
    from amtml_pl.results.run import FinishedRun, load_run
    from amtml_pl.train import run_experiment

# The module of each public name. The function `distill` is at the end of this file.
PLACES = {
    "Distilled": "results.distilled",
    "FinishedRun": "results.run",
    "Interrupted": "errors",
    "UserError": "errors",
    "load_run": "results.run",
    "run_experiment": "train",
}
__all__ = ["Distilled", "FinishedRun", "Interrupted", "UserError", "distill", "load_run", "run_experiment"]


def __getattr__(name: str) -> object:
    """Return a name of `__all__`, imported at first use to make the package load fast."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    """Return the names for tab completion, with those not imported yet."""
    return sorted({*globals(), *__all__})


class CallableFolder(ModuleType):
    """The folder ``distill/`` of the training step, whose name is also that of the function.

    An import of a module in the folder sets the package's attribute to the folder. So the folder is callable.
    """

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call `amtml_pl.own_images.distill`."""
        return import_module("amtml_pl.own_images").distill(*arguments, **named)

    @property
    def __signature__(self) -> Signature:
        """The arguments of the function, which notebooks and editors show."""
        return signature(import_module("amtml_pl.own_images").distill)


import_module("amtml_pl.distill").__class__ = CallableFolder
