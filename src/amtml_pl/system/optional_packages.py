"""Packages that not everyone needs."""

from __future__ import annotations

import importlib
from types import ModuleType

from amtml_pl.errors import UserError


def imported(package: str, *, extra: str) -> ModuleType:
    """A package of one of the project's extras.

    Args:
        package: its name, as it is imported.
        extra: what brings it.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"The package {package!r} is not installed.", fix=f"pip install 'amtml-pl[{extra}]'"
        ) from error
