"""Import packages of the optional extras."""

from __future__ import annotations

import importlib
from types import ModuleType

from amtml_pl.errors import UserError


def imported(package: str, *, extra: str) -> ModuleType:
    """Return a package that an extra of the project installs; raise a UserError without it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        fix = f"pip install 'amtml-pl[{extra}]'"
        raise UserError(f"The package {package!r} is not installed.", fix=fix) from error
