"""Find an official archive on this machine, or fetch it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from amtml_pl.data.datasets.files import ArchiveFiles, Files, FolderFiles, stamp, tree_signature
from amtml_pl.errors import UserError
from amtml_pl.system.download import Download
from amtml_pl.system.files import digest_of_file


class ArchiveSource:
    """Find, fetch and verify an official archive; a subclass reads its splits.

    Nothing is read before its checksum is compared. An unpacked folder is accepted if every file in it has
    a published checksum.

    Args:
        folder: place of the archive, its unpacked folder or a download; the folder above is searched as well.
        mirrors: http(s) folders that hold the archive; empty for no download.
        md5: of the archive, as published.
        members: the md5 of each file of the unpacked folder, by its name; empty where none are published.
    """

    archive: ClassVar[str]  # the name of the archive
    unpacked: ClassVar[str]  # the name of its top folder
    size: ClassVar[int]  # of the archive in bytes; a mirror may send no more

    def __init__(
        self, folder: str | Path, mirrors: Sequence[str], md5: str, members: Mapping[str, str] | None = None
    ) -> None:
        self.folder = Path(folder).expanduser()
        self.mirrors, self.md5, self.members = list(mirrors), md5, dict(members or {})

    def missing(self) -> str | None:
        """Return what is missing and where it was searched; None if nothing is."""
        if self._find() is not None:
            return None
        archives, folders = self._places()
        looked = ", ".join(map(str, archives + folders))
        return f"The files of the data set {type(self).__name__} are missing (expected one of {looked})."

    def fetch(self) -> None:
        """Download and verify what is missing; a UserError names another way to provide it."""
        if self._find() is None:
            Download(
                urls=[f"{mirror.rstrip('/')}/{self.archive}" for mirror in self.mirrors],
                target=self._places()[0][0],
                wrong=self._wrong,
                size=self.size,
                key="'dataset.source.mirrors=[https://HOST/FOLDER]'",
                root="paths.data",
            ).fetch()
        self.files()

    def download_bytes(self) -> int | None:
        """Return the bytes to download; None if impossible, 0 if not needed."""
        if self._find() is not None:
            return 0
        return self.size if self.mirrors else None

    def identity(self) -> dict[str, Any]:
        """Return what determines the pixels, as JSON."""
        return {"source": type(self).__name__, "md5": self.md5}

    def signature(self) -> str | None:
        """Return a cheap identity of the local raw data; None if there is none."""
        found = self._find()
        if found is None:
            return None
        return tree_signature(found, self.members) if found.is_dir() else stamp(found)

    def files(self) -> Files:
        """Return the raw data's files by name; a UserError unless all are there and verified."""
        found, target = self._find(), self._places()[0][0]
        if found is None:
            raise UserError(str(self.missing()), fix=f"put the archive at {target}")
        is_folder = found.is_dir()
        sums = {found / name: md5 for name, md5 in self.members.items()} if is_folder else {found: self.md5}
        stamps = {file: stamp(file) for file in sums}  # what is opened below is what was verified
        for file, md5 in sums.items():
            if (got := _md5(file, stamps[file])) != md5:
                place = target if is_folder else found
                fix = f"put the official {self.archive} at {place}"
                if self.mirrors:
                    fix = f"curl --location --output '{place}' {self.mirrors[0].rstrip('/')}/{self.archive}"
                raise UserError(f"{file} is not the official file (got md5 {got}, expected {md5}).", fix=fix)
        return FolderFiles(found) if is_folder else _opened(found, self.unpacked, stamps[found])

    def _wrong(self, archive: Path) -> str | None:
        got = digest_of_file(archive, "md5")
        return None if got == self.md5 else f"got md5 {got}, expected {self.md5}"

    def _places(self) -> tuple[list[Path], list[Path]]:
        """Return the possible places of the archive (downloads first), and of its unpacked folder."""
        here = self.folder.absolute()
        folders = [here / self.unpacked, here, here.parent / self.unpacked]
        return [here / self.archive, here.parent / self.archive], folders if self.members else []

    def _find(self) -> Path | None:
        archives, folders = self._places()
        whole = [folder for folder in folders if all((folder / member).exists() for member in self.members)]
        return next(iter([path for path in archives if path.is_file()] + whole), None)


@lru_cache(maxsize=32)
def _md5(file: Path, stamp: str) -> str:
    """Return a file's MD5, computed once for each of its states."""
    try:
        return digest_of_file(file, "md5")
    except OSError as error:
        what = f"The file {file} of the data set cannot be read: {error.strerror}."
        raise UserError(what, fix=f"check its permissions: ls -l '{file}'") from error


@lru_cache(maxsize=1)
def _opened(archive: Path, top: str, signature: str) -> ArchiveFiles:
    """Open an archive and keep its index between splits, as building it reads everything."""
    return ArchiveFiles(archive, top)
