"""Adaptive multi-teacher, multi-level knowledge distillation with PyTorch Lightning and Hydra."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amtml_pl.results.run import FinishedRun, load_run

__all__ = ["FinishedRun", "load_run"]


def __getattr__(name: str) -> object:
    """Return a name of `__all__`, imported at first use to make the package load fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from amtml_pl.results import run

    return getattr(run, name)


def __dir__() -> list[str]:
    """Return the names for tab completion, with those not imported yet."""
    return sorted({*globals(), *__all__})
