"""Download one file from the first address that sends it completely."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from amtml_pl.errors import UserError
from amtml_pl.system.console import Terminal, is_watched

# A command without a network ends within ten seconds, and its imports take five of them.
OPENING_SECONDS = 4.0
STALLED_SECONDS = 20.0
CHUNK_BYTES = 1 << 18
MOST_BYTES = 8 << 30  # of a file whose size is not known before
UNSATISFIABLE = 416  # the server's answer if no byte is missing


class TransferError(Exception):
    """A server's failure; errors of the local disk are OSErrors."""


@dataclass(frozen=True)
class Download:
    """A file, and the addresses to download it from.

    Attributes:
        urls: http(s) addresses of the file.
        target: where it is kept.
        wrong: returns what is wrong with a complete file, and None for the right one.
        size: in bytes; None for what the server states. A server may send no more.
        resumable: False if `wrong` does not see a file that was put together from two.
        key: the setting that gives other addresses, as typed.
        root: the setting of the folder.
    """

    urls: Sequence[str]
    target: Path
    wrong: Callable[[Path], str | None]
    size: int | None
    key: str
    root: str
    resumable: bool = True

    def fetch(self) -> None:
        """Download the file if it is missing, in one process at a time.

        A broken transfer stays as ``<target>.part`` and the next call resumes it. If no server answers, that
        takes four seconds in total, for any number of addresses.

        Raises:
            UserError: no server sent the whole file (one reason per address), an address is not an http(s)
                address, the disk is too small, or the folder cannot be written.
        """
        for url in self.urls:
            if not url.startswith(("http://", "https://")):
                raise UserError(f"{url!r} is not an http(s) address.", fix=self.key)
        try:
            self.target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.target}.lock"):
                if not self.target.exists():
                    self._try_all()
        except OSError as error:
            raise UserError(f"The download {self.target} cannot be written: {error}.") from error

    @property
    def part(self) -> Path:
        """The file of an unfinished transfer."""
        return self.target.with_name(f"{self.target.name}.part")

    def _try_all(self) -> None:
        reasons = []
        for url in self.urls:
            if not self.resumable:
                self.part.unlink(missing_ok=True)
            try:
                problem = self._problem_after(url, OPENING_SECONDS / len(self.urls))
            except TransferError as error:
                reasons.append(f"\n  {url}: {error}")
                continue
            if problem is None:
                self.part.replace(self.target)
                return
            self.part.unlink()
            reasons.append(f"\n  {url}: the server sent a wrong file ({problem})")
        raise UserError(
            f"The file {self.target} is missing, and the download failed: "
            f"{''.join(reasons) or 'no mirror is set'}.",
            fix=f"put {self.target.name} at {self.target}, or set another address: {self.key}",
        )

    def _problem_after(self, url: str, seconds: float) -> str | None:
        """Return the problem of the file that a server has sent; None without one."""
        resumed = _size(self.part) > 0
        self._transfer(url, seconds)
        problem = self.wrong(self.part)
        if problem is not None and resumed:  # begun with the bytes of another file
            self.part.unlink()
            self._transfer(url, seconds)
            problem = self.wrong(self.part)
        return problem

    def _transfer(self, url: str, seconds: float) -> None:
        """Append the missing bytes, or load all; a TransferError if some are missing."""
        if self.size is not None:
            if _size(self.part) >= self.size:
                return
            self._refuse_full_disk(self.size - _size(self.part))
        response = _open(url, _size(self.part), seconds)
        if response is None:
            return
        with response:
            size = self.size or _stated_size(response)
            appended = _size(self.part) if response.status == 206 else 0
            self._refuse_full_disk(size - appended)
            with self.part.open("ab" if appended else "wb") as file, _progress() as progress:
                task = progress.add_task(f"downloading {self.target.name}", total=size, completed=appended)
                while chunk := _received(response, min(CHUNK_BYTES, size - file.tell())):
                    file.write(chunk)
                    progress.advance(task, len(chunk))
        if (got := _size(self.part)) < size:
            then = "resumes it" if self.resumable else "starts again"
            raise TransferError(f"the transfer ended after {got} of {size} bytes; the next attempt {then}")

    def _refuse_full_disk(self, needed: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if needed > free:
            raise UserError(
                f"{self.part.parent} has {free / 1e6:.0f} MB free, but the download needs "
                f"{needed / 1e6:.0f} MB.",
                fix=f"free some disk space, or set {self.root} to a folder on another disk",
            )


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Terminal(stderr=True)
    return Progress(*columns, console=console, disable=not is_watched(console))


def _stated_size(response: HTTPResponse) -> int:
    """Return the bytes of the whole file, as the server states them."""
    stated = response.headers.get("Content-Range") if response.status == 206 else None
    found = re.search(r"(\d+)$", stated or response.headers.get("Content-Length") or "")
    if found is None:
        raise TransferError("the server does not state the size of the file")
    if (size := int(found[1])) > MOST_BYTES:
        raise TransferError(f"the file is too large (got {size:,} bytes, expected at most {MOST_BYTES:,})")
    return size


def _received(response: HTTPResponse, most: int) -> bytes:
    try:
        return response.read(most)
    except (OSError, HTTPException) as error:
        raise TransferError(str(error)) from error


def _open(url: str, first_byte: int, seconds: float) -> HTTPResponse | None:
    """Open an address, or return None if no byte is missing.

    The deadline includes the look-up of the host's name.
    """
    headers = {"User-Agent": "amtml-pl", "Accept-Encoding": "identity", "Range": f"bytes={first_byte}-"}
    request = Request(url, headers=headers)  # noqa: S310 (the scheme was checked)
    answer: Future[HTTPResponse] = Future()

    def connect() -> None:
        try:
            answer.set_result(urlopen(request, timeout=STALLED_SECONDS))  # noqa: S310
        except Exception as error:
            answer.set_exception(error)

    threading.Thread(target=connect, daemon=True).start()  # a pool would wait for it at exit
    try:
        response = answer.result(timeout=seconds)
    except TimeoutError:
        raise TransferError(f"no answer within {seconds:.1f} seconds") from None
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError) and error.code == UNSATISFIABLE and first_byte:
            return None
        raise TransferError(str(error)) from error
    if (kind := response.headers.get_content_type()) == "text/html" and "Content-Type" in response.headers:
        response.close()
        raise TransferError(f"the server answered with a page ({kind}) instead of the file")
    return response


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
