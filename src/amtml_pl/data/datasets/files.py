"""Read files by name, from a folder or directly from an archive.

Archives are never unpacked to disk, so no member can be written outside a folder.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import zipfile
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import NoReturn, TypeAlias

from amtml_pl.errors import UserError

# Files left by archivers, file servers and operating systems; names are compared in lower case.
DEBRIS = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "@recycle", "#recycle",
     "#snapshot", "$recycle.bin", "recycler", "lost+found", "system volume information"}
)  # fmt: skip


class FolderFiles:
    """Files by their names relative to a folder on disk; symbolic links are followed."""

    def __init__(self, folder: Path) -> None:
        self.where = folder

    def names(self, under: str) -> list[str]:
        """Return the sorted names of all files below a folder, without debris."""
        found = []
        for folder, folders, files in os.walk(self.where / under, onerror=_refuse, followlinks=True):
            folders[:] = [name for name in folders if not is_debris(name)]
            here = Path(os.path.realpath(folder))
            for link in folders:
                if here.is_relative_to(os.path.realpath(Path(folder, link))):  # os.walk would never end
                    raise UserError(
                        f"The folder {Path(folder, link)} is a link to a folder that contains the link.",
                        fix=f"delete the link: rm '{Path(folder, link)}'",
                    )
            prefix = PurePosixPath(under, Path(folder).relative_to(self.where / under).as_posix())
            found += [str(prefix / name) for name in files if not is_debris(name)]
        return sorted(found)

    def folders(self, under: str) -> list[str]:
        """Return the sorted names of the folders directly below a folder, without debris."""
        try:
            names = [path.name for path in (self.where / under).iterdir() if path.is_dir()]
        except OSError as error:
            _refuse(error)
        return sorted(name for name in names if not is_debris(name))

    def read(self, names: Collection[str]) -> Iterator[tuple[str, Path | BytesIO]]:
        """Yield the files in the order of ``names``."""
        for name in names:
            yield name, self.where / name


class ArchiveFiles:
    """Files by their names relative to the top folder of a ``.tar.gz`` or ``.zip``."""

    def __init__(self, archive: Path, top: str) -> None:
        self.where = archive
        self._top = top

    def names(self, under: str) -> list[str]:
        """Return the sorted names of all files below a folder, without debris."""
        names = list(self._members)
        return names[bisect_left(names, f"{under}/") : bisect_left(names, f"{under}{chr(ord('/') + 1)}")]

    def folders(self, under: str) -> list[str]:
        """Return the sorted names of the folders directly below a folder, without debris."""
        below = (name.removeprefix(f"{under}/") for name in self.names(under))
        return sorted({name.split("/")[0] for name in below if "/" in name})

    def read(self, names: Collection[str]) -> Iterator[tuple[str, Path | BytesIO]]:
        """Yield the files in the order of the archive; a UserError if one is missing."""
        if absent := [name for name in names if name not in self._members]:
            raise UserError(
                f"The archive {self.where} lacks {len(absent)} of {len(names)} expected files: "
                f"{', '.join(absent[:5])}.",
                fix=f"delete the archive, and download it again: rm '{self.where}'",
            )
        wanted = {self._members[name]: name for name in names}
        if self.where.suffix == ".zip":
            with zipfile.ZipFile(self.where) as archive:
                for member, name in wanted.items():
                    yield name, BytesIO(archive.read(member))
        else:
            with tarfile.open(self.where, "r|gz") as tar:
                for info in tar:  # one pass: a gzip stream cannot be searched
                    file = tar.extractfile(info) if info.isfile() and info.name in wanted else None
                    if file is not None:
                        yield wanted.pop(info.name), BytesIO(file.read())

    @cached_property
    def _members(self) -> dict[str, str]:
        """The archive's name of each regular file, by sorted relative name, without debris."""
        if self.where.suffix == ".zip":
            with zipfile.ZipFile(self.where) as archive:
                members = [info.filename for info in archive.infolist() if not info.is_dir()]
        else:
            with tarfile.open(self.where, "r|gz") as tar:
                members = [info.name for info in tar if info.isfile()]
        named = {PurePosixPath(name).as_posix().removeprefix(f"{self._top}/"): name for name in members}
        return {name: named[name] for name in sorted(named) if not any(map(is_debris, name.split("/")))}


Files: TypeAlias = FolderFiles | ArchiveFiles


def is_debris(name: str) -> bool:
    """Return True if a name is hidden, or an archiver's or a file server's."""
    return name.startswith(".") or name.lower() in DEBRIS


def tree_signature(folder: Path, members: Iterable[str]) -> str:
    """Return a hash of the names, sizes and modification times of files below ``folder``."""
    files = FolderFiles(folder)
    listing = hashlib.sha256()
    for member in members:
        for name in files.names(member) if (folder / member).is_dir() else [member]:
            listing.update(f"{name}\0{stamp(folder / name)}\n".encode(errors="surrogateescape"))
    return f"listing {listing.hexdigest()}"


def stamp(file: Path) -> str:
    """Return the size and modification time of one file, as a text."""
    try:
        status = file.stat()
    except OSError as error:  # such as a symbolic link with no target
        _refuse(error)
    return f"{status.st_size} bytes, modified {status.st_mtime_ns}"


def _refuse(error: OSError) -> NoReturn:
    what = f"The path {error.filename} of the data set cannot be read: {error.strerror}."
    raise UserError(what, fix=f"check the path and its permissions: ls -l '{error.filename}'") from error
