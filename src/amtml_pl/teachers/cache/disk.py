"""Errors for a cache that does not fit on its disk or cannot be written."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.filesize import decimal

from amtml_pl.errors import UserError

SMALLER = (
    "free some space, or paths.cache=FOLDER on a larger disk; smaller: fewer data.views, hint_pool=1, "
    "cache.hints=int8"
)


def refuse_full_disk(root: Path, needed: Mapping[str, int]) -> None:
    """Raise a UserError if a build needs more space than the disk has."""
    existing = next(folder for folder in (root.resolve(), *root.resolve().parents) if folder.exists())
    free, total = shutil.disk_usage(existing).free, sum(needed.values())
    if total > free:
        listed = ", ".join(f"{name} {decimal(size)}" for name, size in needed.items())
        raise UserError(
            f"Teachers' outputs need {decimal(total)} more ({listed}); {decimal(free)} are free at {root}.",
            fix=SMALLER,
        )


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn every OSError of a write into a UserError; what was complete before stays."""
    try:
        yield
    except NotImplementedError as error:
        raise UserError(
            f"The file system of {root} has no locks ({error}).",
            fix="choose a disk with file locks: paths.cache=FOLDER",
        ) from error
    except OSError as error:
        place = error.filename or root
        what = f"The cache lacks outputs of this run and cannot be written: {place}: {error.strerror}."
        fix = "paths.cache=FOLDER that you may write, or its owner: python -m amtml_pl.cache action=build"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            what, fix = f"The disk is full: {place} cannot be written ({error.strerror}).", SMALLER
        raise UserError(what, fix=fix) from error
