"""Being told to stop: a fit finishes its step and saves before it obeys Ctrl-C or a scheduler's SIGTERM."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from amtml_pl.errors import Preempted

# What schedulers send before they kill; torchrun, which passes it on, kills after 30 seconds.
GRACE_SECONDS = 20.0


def raise_on_sigterm() -> None:
    """From here on SIGTERM ends the process by `Preempted`, as Ctrl-C does by KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, preempt)


def prepare_to_end() -> None:
    """Ignore further signals: the process is about to end, and one of them has ended it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Where Ctrl-C has met code that was made from text, Python would end by SIGINT, and ignore the status.
    exec("")  # noqa: S102 - it forgets that Ctrl-C


def preempt(number: int, frame: FrameType | None) -> None:
    """A handler of signals."""
    raise Preempted


class StopRequest:
    """Whether somebody has asked the fit to stop, by Ctrl-C or SIGTERM.

    Attributes:
        number: of the signal; None where nobody has.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, after `install`, signals are noted and obeyed later; afterwards as they were before."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.number is not None:  # it came when the fit had nothing left to do
            self.raise_if_requested()

    def install(self) -> None:
        """Begins to note signals; called once Lightning has put its own handlers in place."""
        signal.signal(signal.SIGINT, self.record)
        signal.signal(signal.SIGTERM, self.record)

    def record(self, number: int, frame: FrameType | None) -> None:
        """Notes a first signal, for which there is some time; obeys a second one at once."""
        if self.number is not None:
            self.raise_if_requested()
        self.number = number
        signal.signal(signal.SIGALRM, lambda *_: self.raise_if_requested())
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def raise_if_requested(self) -> None:
        """Stops.

        Raises:
            KeyboardInterrupt: after Ctrl-C.
            Preempted: after SIGTERM, or where another process of the run was told to stop.
        """
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Preempted
