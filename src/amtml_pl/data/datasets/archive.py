"""What the sources of official archives share: finding the archive on this machine, or fetching it."""

from __future__ import annotations

import hashlib
import logging
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from amtml_pl.data.datasets.download import download
from amtml_pl.data.datasets.files import ArchiveFiles, Files, FolderFiles, stamp, tree_signature
from amtml_pl.errors import UserError

log = logging.getLogger(__name__)


class ArchiveSource:
    """What the sources of official archives share; a subclass names its archive and reads the splits.

    Args:
        folder: where the archive or its unpacked folder lies, or is downloaded to. The folder above is
            searched as well.
        mirrors: http(s) folders that hold the archive; None for the official one, empty for no download.
    """

    archive: ClassVar[str]
    unpacked: ClassVar[str]
    members: ClassVar[tuple[str, ...]]
    official: ClassVar[str]
    md5: ClassVar[str]
    size: ClassVar[int]

    def __init__(self, folder: str | Path, mirrors: list[str] | None = None) -> None:
        self.folder = Path(folder).expanduser()
        self.mirrors = [self.official] if mirrors is None else mirrors

    def missing(self) -> str | None:
        """What is missing and where it was looked for; None when the raw data is here."""
        if self._find() is not None:
            return None
        archives, folders = self._places()
        looked = ", ".join(str(path) for path in (*archives, *folders))
        sentence = f"The raw data of {type(self).__name__} is missing: looked for {looked}."
        for folder in folders:
            absent = [member for member in self.members if not (folder / member).exists()]
            if len(absent) < len(self.members):
                sentence += f" {folder} lacks {', '.join(absent)}."
        return sentence

    def fetch(self) -> None:
        """Downloads and verifies what is missing; a UserError says how else it can be provided."""
        found = self._find()
        if found is not None:
            self._compare_with_official(found)
            return
        target = self._places()[0][0]
        try:
            download(self.archive, self.mirrors, target, checksum=f"md5:{self.md5}", size=self.size)
        except UserError as error:
            raise UserError(
                f"{self.missing()} {error.what}",
                fix=f"put the archive at {target}, or name a mirror that answers: "
                "'dataset.source.mirrors=[https://HOST/FOLDER]'",
            ) from error

    def download_bytes(self) -> int | None:
        """What fetch would load; None when nothing can be downloaded, 0 when nothing need be."""
        if self._find() is not None:
            return 0
        return self.size if self.mirrors else None

    def identity(self) -> dict[str, Any]:
        """What decides the pixels, as JSON."""
        return {"source": type(self).__name__}

    def signature(self) -> str | None:
        """A cheap identity of the raw data on this machine; None when there is none."""
        found = self._find()
        if found is None:
            return None
        return tree_signature(found, self.members) if found.is_dir() else stamp(found)

    def files(self) -> Files:
        """The raw data's files, named as below the top folder of the archive.

        Raises:
            UserError: there is no raw data on this machine.
        """
        found, signature = self._find(), self.signature()
        if found is None or signature is None:
            raise UserError(str(self.missing()), fix=f"put the archive at {self._places()[0][0]}")
        return FolderFiles(found) if found.is_dir() else _opened(found, self.unpacked, signature)

    def _places(self) -> tuple[list[Path], list[Path]]:
        parents = self.folder.absolute(), self.folder.absolute().parent
        folders = [parents[0] / self.unpacked, parents[0], parents[1] / self.unpacked]
        return [parent / self.archive for parent in parents], folders

    def _find(self) -> Path | None:
        archives, folders = self._places()
        whole = [folder for folder in folders if all((folder / member).exists() for member in self.members)]
        return next(iter([path for path in archives if path.is_file()] + whole), None)

    def _compare_with_official(self, found: Path) -> None:
        if found.is_dir():
            return
        got = found.stat().st_size
        if got == self.size:
            with found.open("rb") as file:
                digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
            if digest == self.md5:
                return
        log.warning(
            "%s is not the official archive (%d bytes, official: %d bytes with md5 %s); "
            "it is read all the same, if its structure is right.",
            found,
            got,
            self.size,
            self.md5,
        )


@lru_cache(maxsize=1)
def _opened(archive: Path, top: str, signature: str) -> ArchiveFiles:
    """Keeps the index of the archive from one split to the next: building it reads the whole stream."""
    return ArchiveFiles(archive, top)
