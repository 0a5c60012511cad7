"""Import packages of the optional extras."""

from __future__ import annotations

import importlib
from types import ModuleType

from amtml_pl.errors import UserError


def imported(package: str, *, extra: str) -> ModuleType:
    """Return a package of one of the project's extras.

    Args:
        package: its import name.
        extra: the extra that installs it.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise UserError(
            f"The package {package!r} is not installed.", fix=f"pip install 'amtml-pl[{extra}]'"
        ) from error
