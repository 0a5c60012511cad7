"""What Python reports of itself when something is written, sent, started or run as code."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ACTS = ("os.", "shutil.", "socket.", "subprocess.", "pty.", "urllib.")
CODE = ("exec", "compile", "ctypes.", "pickle.")
READS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.putenv", "os.unsetenv")


class Watch:
    """An audit hook, of which a process has one: it cannot be removed again."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.seen: list[str] = []
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple[object, ...]) -> None:
        """Keep an event that is watched for."""
        if not self.names:
            return
        writes = event == "open" and int(str(arguments[2])) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or (event.startswith(self.names) and event not in READS):
            self.seen.append(f"{event} {arguments!r:.200}")


WATCH = Watch()


@contextmanager
def nothing_happens(names: tuple[str, ...] = ACTS) -> Iterator[None]:
    """Fail if anything is written, sent or started meanwhile; with ``ACTS + CODE`` also run as code."""
    WATCH.names, WATCH.seen = names, []
    try:
        yield
    finally:
        WATCH.names = ()
    assert not WATCH.seen, WATCH.seen
