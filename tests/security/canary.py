"""A payload that would write a file if it were ever run, and what may be left of it."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amtml_pl.errors import UserError


class Payload:
    """Unpickling it, in the ordinary way, creates a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return open, (str(self.canary), "w")


class ShellPayload(Payload):
    """The same by a shell."""

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


class CodePayload(Payload):
    """The same by code in a text."""

    def __reduce__(self):
        return eval, (f"__import__('pathlib').Path({str(self.canary)!r}).touch()",)


PAYLOADS = (Payload, ShellPayload, CodePayload)


def works(payload: Payload) -> bool:
    """Whether the payload does what it is meant to, so that a test of it can fail."""
    pickle.loads(pickle.dumps(payload))  # noqa: S301 (that is what must never happen elsewhere)
    found = payload.canary.exists()
    payload.canary.unlink()
    return found


@contextmanager
def refused() -> Iterator[list[UserError]]:
    """Lets through a message for the user, and nothing else: neither an error of ours nor success."""
    found: list[UserError] = []
    try:
        yield found
    except UserError as error:
        found.append(error)
    assert [str(error) for error in found if str(error).strip()], "it was taken for sound, or without a word"


def outcome(work, *arguments):
    """What ``work`` returns, or the message that it ends with; everything else is a crash."""
    try:
        return work(*arguments)
    except UserError as error:
        return error


def flipped(content: bytes, bit: int) -> bytes:
    """The same bytes with one bit changed; the bit is taken modulo their number."""
    changed = bytearray(content)
    place = bit % (8 * len(changed))
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


@contextmanager
def at_most(megabytes: int) -> Iterator[None]:
    """Fails where Python and numpy take more memory meanwhile."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < megabytes << 20
    finally:
        tracemalloc.stop()
