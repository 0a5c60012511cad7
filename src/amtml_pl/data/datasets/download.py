"""Download one file from the first mirror that sends it completely."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.request import Request, urlopen

from filelock import FileLock
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from amtml_pl.errors import UserError
from amtml_pl.system.console import Terminal, is_watched
from amtml_pl.system.files import digest_of_file

# A command without a network ends within ten seconds, and its imports take five of them.
OPENING_SECONDS = 4.0
STALLED_SECONDS = 20.0
CHUNK_BYTES = 1 << 18


class TransferError(Exception):
    """A mirror's failure; errors of the local disk are OSErrors."""


def download(name: str, mirrors: Sequence[str], target: Path, *, md5: str, size: int) -> None:
    """Download ``<mirror>/<name>`` from the first mirror that sends it completely, if missing.

    A broken transfer stays as ``<target>.part`` and the next call resumes it. If no mirror answers, that
    takes four seconds in total, for any number of mirrors. ``mirrors`` are http(s) addresses of folders.

    Raises:
        UserError: no mirror sent the whole file (one reason per mirror), a mirror is not an http(s) address,
            the disk is too small, or the folder cannot be written.
    """
    for mirror in mirrors:
        if not mirror.startswith(("http://", "https://")):
            raise UserError(
                f"The mirror {mirror!r} of {name} is not an http(s) address.",
                fix="'dataset.source.mirrors=[https://HOST/FOLDER]'",
            )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                _try_mirrors(name, mirrors, target, md5, size)
    except OSError as error:
        raise UserError(f"The download {target} cannot be written: {error}.") from error


def _try_mirrors(name: str, mirrors: Sequence[str], target: Path, md5: str, size: int) -> None:
    part = target.with_name(f"{target.name}.part")
    free, needed = shutil.disk_usage(part.parent).free, size - _size(part)
    if needed > free:
        raise UserError(
            f"{part.parent} has {free / 1e6:.0f} MB free, but the download needs {needed / 1e6:.0f} MB.",
            fix="free some disk space, or set paths.data to a folder on another disk",
        )
    reasons = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        try:
            _transfer(url, part, size, opening_seconds=OPENING_SECONDS / len(mirrors))
            got = digest_of_file(part, "md5")
        except TransferError as error:
            reasons.append(f"\n  {url}: {error}")
            continue
        if got == md5:
            part.replace(target)
            return
        part.unlink()
        reasons.append(f"\n  {url}: the mirror sent a wrong file (got md5 {got}, expected {md5})")
    raise UserError(
        f"The file {target} is missing, and the download failed: {''.join(reasons) or 'no mirror is set'}.",
        fix=f"put {name} at {target}, or set another mirror: 'dataset.source.mirrors=[https://HOST/FOLDER]'",
    )


def _transfer(url: str, part: Path, size: int, *, opening_seconds: float) -> None:
    """Append the missing bytes to ``part``, or load all; a TransferError if some are missing."""
    if _size(part) >= size:
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Terminal(stderr=True)
    with (
        _open(url, _size(part), opening_seconds) as response,
        part.open("ab" if response.status == 206 else "wb") as file,
        Progress(*columns, console=console, disable=not is_watched(console)) as progress,
    ):
        task = progress.add_task(f"downloading {part.stem}", total=size, completed=file.tell())
        while chunk := _received(response, min(CHUNK_BYTES, size - file.tell())):
            file.write(chunk)
            progress.advance(task, len(chunk))
    if (got := _size(part)) < size:
        raise TransferError(f"the transfer ended after {got} of {size} bytes; the next attempt resumes it")


def _received(response: HTTPResponse, most: int) -> bytes:
    try:
        return response.read(most)
    except (OSError, HTTPException) as error:
        raise TransferError(str(error)) from error


def _open(url: str, first_byte: int, seconds: float) -> HTTPResponse:
    """Open an address within a deadline that includes the look-up of the host's name."""
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
        return answer.result(timeout=seconds)
    except TimeoutError:
        raise TransferError(f"no answer within {seconds:.1f} seconds") from None
    except (OSError, HTTPException) as error:
        raise TransferError(str(error)) from error


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
