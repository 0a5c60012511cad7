"""Watch Python's audit events of writing, sending, starting and running code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ACTS = ("os.", "shutil.", "socket.", "subprocess.", "pty.", "urllib.")
CODE = ("exec", "compile", "ctypes.", "pickle.")
READS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.putenv", "os.unsetenv")


WATCHED: list[str] = []
SEEN: list[str] = []


def note(event: str, arguments: tuple[object, ...]) -> None:
    """Keep a watched event."""
    if WATCHED:
        writes = event == "open" and int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or (event.startswith(tuple(WATCHED)) and event not in READS):
            SEEN.append(f"{event} {arguments!r:.200}")


sys.addaudithook(note)  # once in a process, as it cannot be removed


@contextmanager
def nothing_happens(names: tuple[str, ...] = ACTS) -> Iterator[None]:
    """Fail if anything is written, sent or started meanwhile; with ``ACTS + CODE`` also run as code."""
    SEEN.clear()
    WATCHED.extend(names)
    try:
        yield
    finally:
        WATCHED.clear()
    assert not SEEN, SEEN
