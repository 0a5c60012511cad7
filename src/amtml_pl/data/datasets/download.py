"""Download one file from the first mirror that sends it completely."""

from __future__ import annotations

import http.client
import queue
import shutil
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from amtml_pl.errors import UserError
from amtml_pl.system.console import Terminal, is_watched
from amtml_pl.system.files import digest_of_file

# A command without a network ends within ten seconds, and its imports take five of them.
OPENING_SECONDS = 4.0
STALLED_SECONDS = 20.0
CHUNK_BYTES = 1 << 18


def download(
    name: str, mirrors: Sequence[str], target: Path, *, checksum: str, size: int | None = None
) -> None:
    """Download ``<mirror>/<name>`` from the first mirror that sends it completely, if missing.

    A broken transfer stays as ``<target>.part`` and the next call resumes it. If no mirror answers, that
    takes four seconds in total, for any number of mirrors.

    Args:
        name: the file's name on every mirror.
        mirrors: http(s) addresses of folders, tried in this order.
        target: where the verified file lies in the end; its folder is created.
        checksum: ``"md5:<hex>"``, ``"sha256:<hex>"`` or any other algorithm of hashlib.
        size: expected bytes; checked against the free disk space before anything is loaded.

    Raises:
        UserError: no mirror sent the whole file (one reason per mirror), a mirror is not an http(s) address,
            the disk is too small, or the folder cannot be written.
    """
    for mirror in mirrors:
        if not mirror.startswith(("http://", "https://")):
            raise UserError(
                f"The mirror {mirror!r} of {name} is not an http(s) address.",
                fix="name the folder that holds the file, such as https://host/path",
            )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not target.exists():
                _from_any_mirror(name, mirrors, target, checksum, size)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error}.") from error


class _MirrorError(Exception):
    """The reason why one mirror did not send the file."""


def _from_any_mirror(
    name: str, mirrors: Sequence[str], target: Path, checksum: str, size: int | None
) -> None:
    part = target.with_name(f"{target.name}.part")
    _check_free_space(part, size)
    reasons = []
    for mirror in mirrors:
        url = f"{mirror.rstrip('/')}/{name}"
        try:
            _transfer(url, part, size, opening_seconds=OPENING_SECONDS / len(mirrors))
            _verify(part, checksum)
        except _MirrorError as failure:
            reasons.append(f"\n  {url}: {failure}")
        else:
            part.replace(target)
            return
    raise UserError(f"{name} could not be downloaded: {''.join(reasons) or 'no mirror is named'}.")


def _check_free_space(part: Path, size: int | None) -> None:
    here = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(part.parent).free
    if size is not None and size - here > free:
        raise UserError(
            f"{part.parent} has {free / 1e6:.0f} MB free, the download needs {(size - here) / 1e6:.0f} MB.",
            fix="free some space, or point paths.data to another disk",
        )


def _transfer(url: str, part: Path, size: int | None, *, opening_seconds: float) -> None:
    """Append the missing bytes to ``part``, at most ``size`` in all, or load it again."""
    here = part.stat().st_size if part.exists() else 0
    try:
        with _open(url, here, opening_seconds) as response:
            resumed = response.status == http.client.PARTIAL_CONTENT
            if resumed and not response.headers.get("Content-Range", "").startswith(f"bytes {here}-"):
                part.unlink()
                raise _MirrorError("it sent another part of the file than the one asked for")
            length = response.headers.get("Content-Length", "")
            total = int(length) + (here if resumed else 0) if length.isdecimal() else None
            if size is not None and (total or 0) > size:
                raise _MirrorError(f"it offers {total:,} bytes, expected {size:,}")
            with part.open("ab" if resumed else "wb") as file:
                _copy(response, file, url.rsplit("/", 1)[-1], total, size)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to load; the checksum decides whether that is the whole file
        raise _MirrorError(f"the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _MirrorError(str(error.reason)) from error
    except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
        raise _MirrorError(f"the connection broke ({error!r})") from error
    got = part.stat().st_size
    if total is not None and got != total:
        raise _MirrorError(f"the transfer ended after {got} of {total} bytes; repeating goes on from there")


def _open(url: str, first_byte: int, seconds: float) -> http.client.HTTPResponse:
    """Open an address within a deadline that includes the look-up of the host's name."""
    headers = {"User-Agent": "amtml-pl", "Accept-Encoding": "identity"}
    if first_byte:
        headers["Range"] = f"bytes={first_byte}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (the scheme was checked)
    answer: queue.SimpleQueue[http.client.HTTPResponse | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(urllib.request.urlopen(request, timeout=STALLED_SECONDS))  # noqa: S310
        except Exception as error:  # raised again below, in the caller's thread
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        response = answer.get(timeout=seconds)
    except queue.Empty:
        raise _MirrorError(f"no answer within {seconds:.1f} seconds") from None
    if isinstance(response, Exception):
        raise response
    return response


def _copy(
    response: http.client.HTTPResponse, file: BinaryIO, title: str, total: int | None, size: int | None
) -> None:
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    console = Terminal(stderr=True)
    with Progress(*columns, console=console, disable=not is_watched(console)) as progress:
        task = progress.add_task(f"downloading {title}", total=total, completed=file.tell())
        while chunk := response.read(CHUNK_BYTES):
            if size is not None and file.tell() + len(chunk) > size:
                raise _MirrorError(f"it sends more than the {size:,} bytes expected")
            file.write(chunk)
            progress.advance(task, len(chunk))


def _verify(part: Path, checksum: str) -> None:
    algorithm, expected = checksum.split(":")
    got = digest_of_file(part, algorithm)
    if got != expected:
        part.unlink()
        raise _MirrorError(
            f"the file has the {algorithm} checksum {got}, expected {expected}; it was removed"
        )
