"""Adaptive multi-teacher, multi-level knowledge distillation with PyTorch Lightning and Hydra."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amtml_pl.errors import Interrupted, UserError
    from amtml_pl.results.run import FinishedRun, load_run
    from amtml_pl.train import run_experiment

# The module of each public name.
PLACES = {
    "FinishedRun": "results.run",
    "Interrupted": "errors",
    "UserError": "errors",
    "load_run": "results.run",
    "run_experiment": "train",
}
__all__ = ["FinishedRun", "Interrupted", "UserError", "load_run", "run_experiment"]


def __getattr__(name: str) -> object:
    """Return a name of `__all__`, imported at first use to make the package load fast."""
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)


def __dir__() -> list[str]:
    """Return the names for tab completion, with those not imported yet."""
    return sorted({*globals(), *__all__})
