"""A payload that would write a file if it were run, and tools to damage files."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amtml_pl.errors import UserError


class Payload:
    """Runs code that creates a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.code = f"__import__('pathlib').Path({str(canary)!r}).touch()"

    def __reduce__(self):
        return eval, (self.code,)


def outcome(work, *arguments):
    """Return a function's result or its UserError; any other exception is a crash."""
    try:
        return work(*arguments)
    except UserError as error:
        return error


def flipped(content: bytes, bit: int) -> bytes:
    """Return bytes with one bit changed; the bit is taken modulo their number."""
    changed = bytearray(content)
    place = bit % (8 * len(changed))
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@contextmanager
def at_most(megabytes: int) -> Iterator[None]:
    """Fail if Python and numpy allocate more memory meanwhile."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()
