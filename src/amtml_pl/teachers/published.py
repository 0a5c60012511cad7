"""Find the file of a teacher's weights, and download one that other people published."""

from __future__ import annotations

import hashlib
import logging
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import Any, cast

from amtml_pl.errors import UserError
from amtml_pl.models.classifier_head import ClassMap, map_of_classes
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.download import Download
from amtml_pl.system.files import digest_of_file, file_digest, replacing
from amtml_pl.system.plain_yaml import read_plain_yaml

log = logging.getLogger(__name__)
MIRRORS = "'teacher.NAME.weights.mirrors=[https://HOST/FOLDER]'"
READING = ("key", "strip_prefixes", "rename")  # how a file is read, wherever it comes from


@dataclass(frozen=True)
class PublishedFile:
    """A published file of weights, kept below ``paths.teachers``.

    Attributes:
        url: http(s) address of the file, or of a tar archive that holds it.
        sha256: the first digits of the file's SHA-256; None if none is published.
        mirrors: http(s) folders that also hold what ``url`` names.
        member: the file's name in the archive; None without an archive.
        folder: where it is kept.
    """

    url: str
    sha256: str | None
    mirrors: tuple[str, ...]
    member: str | None
    folder: Path

    @property
    def file(self) -> Path:
        """The place of the file, whether it exists or not."""
        return self.folder / (self.member or self.name)

    @property
    def name(self) -> str:
        """The name of what is downloaded."""
        return self.url.rpartition("/")[2]

    def found(self) -> Path | None:
        """Return the file, None if it is missing; a UserError for another one."""
        if not self.file.is_file():
            return None
        if problem := self._problem(file_digest(self.file) or "of no readable file"):
            raise UserError(
                f"{self.file} is not the published file ({problem}).",
                fix=f"rm '{self.file}', then repeat the command to download it again",
            )
        return self.file

    def fetch(self) -> None:
        """Download and verify the file if it is missing; keep nothing half-written."""
        if self.found() is not None:
            return
        archive = self.folder / self.name
        Download(
            urls=[self.url, *(f"{mirror.rstrip('/')}/{self.name}" for mirror in self.mirrors)],
            target=archive,
            wrong=self._wrong,
            size=None,
            key=MIRRORS,
            root="paths.teachers",
            resumable=self.sha256 is not None,
        ).fetch()
        if self.member is not None:
            self._extract(archive)
        if self.sha256 is None:
            got = file_digest(self.file)
            log.warning("%s has no published checksum. Its SHA-256 is %s", self.file, got)

    def _extract(self, archive: Path) -> None:
        try:
            if problem := self._wrong(archive):
                raise UserError(f"{archive} is not the published archive ({problem}).", fix=f"rm '{archive}'")
            with self._opened(archive) as content, replacing(self.file) as new, new.open("wb") as file:
                shutil.copyfileobj(content, file)
        except OSError as error:
            raise UserError(f"The file {self.file} of {archive} cannot be written: {error}.") from error

    def _wrong(self, downloaded: Path) -> str | None:
        if self.member is None:
            return self._problem(digest_of_file(downloaded))
        try:
            with self._opened(downloaded) as content:
                return self._problem(hashlib.file_digest(content, "sha256").hexdigest())
        except (tarfile.TarError, KeyError) as error:
            return f"the tar archive cannot give {self.member}: {error}"

    def _problem(self, got: str) -> str | None:
        expected = (self.sha256 or "").lower()
        return None if got.startswith(expected) else f"got sha256 {got}, expected {expected}"

    @contextmanager
    def _opened(self, archive: Path) -> Iterator[BufferedReader]:
        """Open the member of the archive; nothing but its bytes is used."""
        with tarfile.open(archive, "r:") as tar:
            found = (info for info in tar if str(PurePosixPath(info.name)) == self.member)
            content = next((tar.extractfile(info) for info in found if info.isfile()), None)
            if content is None:
                raise KeyError("no such file")
            yield cast(BufferedReader, content)


def published_file(weights: Mapping[str, Any], teachers: Path) -> PublishedFile | None:
    """Return the published file that a teacher's ``weights`` name, if they do."""
    if weights.get("url") is None:
        return None
    return PublishedFile(
        url=weights["url"],
        sha256=weights.get("sha256"),
        mirrors=tuple(weights.get("mirrors") or ()),
        member=weights.get("member"),
        folder=teachers.absolute() / "published",
    )


def weights_place(weights: Mapping[str, Any], teachers: Path) -> Path | None:
    """Return the file that a teacher's ``weights`` name, existing or not; None for none."""
    if (published := published_file(weights, teachers)) is not None:
        return published.file
    if weights.get("run") is not None:
        return RunFolder(Path(weights["run"])).weights_file
    return None if weights.get("path") is None else Path(weights["path"])


def classes_of_run(folder: RunFolder) -> ClassMap:
    """Return the class map of a run's student, None for classes without images."""
    try:
        config = read_plain_yaml(folder.config_file)
        return map_of_classes(config["data"]["classes"], config["dataset"]["num_classes"])
    except (OSError, ValueError, TypeError, KeyError):  # `refuse_unfinished` reports it
        return None


def refuse_unfinished(folder: RunFolder) -> None:
    """Raise a UserError unless a folder's run is completed and its student unchanged."""
    if (record := folder.completed()) is None or record.debug is not None:
        raise UserError(
            f"The folder {folder.path} has no completed run (expected one as teacher.NAME.weights.run).",
            fix="repeat the training command of that run, or set teacher.NAME.weights.run to a completed one",
        )
    folder.refuse_changed(record, folder.weights_file)
