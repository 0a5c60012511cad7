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
    "set paths.cache to a folder on a larger disk, make the outputs smaller (data.views=16, "
    "cache.hints=int8, hint_pool=1 for last maps, loss.regression.grid=4 with method=amtml), "
    "or set teacher_source=live"
)


def refuse_full_disk(root: Path, needed: Mapping[str, int]) -> None:
    """Raise a UserError if a build needs more space than the disk has."""
    existing = next(folder for folder in (root.resolve(), *root.resolve().parents) if folder.exists())
    free, total = shutil.disk_usage(existing).free, sum(needed.values())
    if total > free:
        listed = ", ".join(f"{name} {decimal(size)}" for name, size in needed.items())
        raise UserError(
            f"The disk of {root} has too little space for the teacher outputs "
            f"(got {decimal(free)} free, expected {decimal(total)}: {listed}).",
            fix=SMALLER,
        )


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn every OSError of a write into a UserError; what was complete before stays."""
    try:
        yield
    except NotImplementedError as error:
        raise UserError(
            f"The file system of {root} does not support file locks ({error}).",
            fix="set paths.cache to a folder on a file system with file locks",
        ) from error
    except OSError as error:
        place = error.filename or root
        what = f"The missing teacher outputs cannot be written to the cache ({place}: {error.strerror})."
        fix = "set paths.cache to a folder that you can write, or change the permissions of the cache"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            what, fix = f"The disk is full, so {place} cannot be written ({error.strerror}).", SMALLER
        raise UserError(what, fix=fix) from error
