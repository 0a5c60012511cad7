"""Finish the step and save before Ctrl-C or a scheduler's SIGTERM stops a fit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from amtml_pl.errors import Preempted

# From SIGTERM to the end; torchrun, which passes SIGTERM on, kills after 30 seconds.
GRACE_SECONDS = 20.0


def raise_on_sigterm() -> None:
    """Make SIGTERM raise `Preempted` from now on, as Ctrl-C raises KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, raise_preempted)


def prepare_to_end() -> None:
    """Ignore further signals, as the process is already ending."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # After Ctrl-C inside exec'd code Python ends itself by SIGINT, without our status.
    exec("")  # noqa: S102 - resets that state


def raise_preempted(number: int, frame: FrameType | None) -> None:
    """Handle a signal by raising `Preempted`."""
    raise Preempted


@contextmanager
def restoring_handlers(*numbers: int) -> Iterator[None]:
    """Restore this process's handlers of some signals afterwards."""
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: set by code outside Python
                signal.signal(number, handler)


class StopRequest:
    """A request to stop the fit, by Ctrl-C or SIGTERM."""

    number: int | None = None  # of the signal

    @contextmanager
    def restoring_handlers(self) -> Iterator[None]:
        """Restore the signal handlers afterwards, then act on a recorded signal."""
        with restoring_handlers(signal.SIGINT, signal.SIGTERM):
            try:
                yield
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        if self.number is not None:  # it came at the end of the fit
            self.raise_if_requested()

    def install(self) -> None:
        """Start to record signals, after Lightning has installed its own handlers."""
        signal.signal(signal.SIGINT, self.record)
        signal.signal(signal.SIGTERM, self.record)

    def record(self, number: int, frame: FrameType | None) -> None:
        """Record a first signal and allow some time; act on a second one at once."""
        if self.number is not None:
            self.raise_if_requested()
        self.number = number
        signal.signal(signal.SIGALRM, lambda *_: self.raise_if_requested())
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def raise_if_requested(self) -> None:
        """Raise KeyboardInterrupt after Ctrl-C, else `Preempted`, also for another process's signal."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Preempted
