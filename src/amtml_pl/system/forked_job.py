"""A process for one job alone: what ends it, however suddenly, ends nothing else."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")
PR_SET_PDEATHSIG = 1
PASSED_ON = (signal.SIGINT, signal.SIGTERM)


class ProcessCrashedError(Exception):
    """The process ended without a result, as after a segmentation fault or for want of memory."""


def can_have_own_process() -> bool:
    """Whether a process can be forked here: on Linux, while this one has not used an accelerator.

    A fork knows all that is imported, so that a job starts at once.
    """
    torch = sys.modules.get("torch")
    used = torch is not None and torch.cuda.is_initialized()
    return sys.platform == "linux" and threading.current_thread() is threading.main_thread() and not used


def in_own_process(function: Callable[[], Result]) -> Result:
    """Runs a function in a process and a process group of its own, and gives what it returns.

    Ctrl-C and SIGTERM are passed on to it once, and it is waited for; where this process is killed, it is
    asked to end too.

    Args:
        function: returns what can be pickled, and raises nothing.

    Returns:
        What the function returns.

    Raises:
        ProcessCrashedError: if it ended without; the message says by which signal or status.
        KeyboardInterrupt: after Ctrl-C, when the process has ended.
        SystemExit: with 143 after SIGTERM, if the function does not decide otherwise.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=run_in_child, args=(function, sender, os.getpid()), daemon=False)
    with passing_on_signals(process) as asked_to_end:
        sender.close()
        try:
            result: Result = receiver.recv()
        except EOFError:
            process.join()
            if signal.SIGINT in asked_to_end:
                raise KeyboardInterrupt from None
            if signal.SIGTERM in asked_to_end:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise ProcessCrashedError(exit_reason(process.exitcode)) from None
        process.join()
    return result


def run_in_child(function: Callable[[], Result], sender: Connection, parent: int) -> None:
    """What the process does."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    os.setpgid(0, 0)  # Ctrl-C in a terminal reaches the parent alone, which passes it on once
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # it has gone already
        sys.exit(1)
    sender.send(function())


@contextmanager
def passing_on_signals(process: BaseProcess) -> Iterator[list[int]]:
    """Starts a process, to which SIGINT and SIGTERM go inside; gives those that came."""
    came: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)

    signal.pthread_sigmask(
        signal.SIG_BLOCK, PASSED_ON
    )  # what comes from here on waits until it can be passed on
    process.start()
    before = {number: signal.signal(number, pass_on) for number in PASSED_ON}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_reason(exitcode: int | None) -> str:
    """How a process ended, for a person."""
    if exitcode is None or exitcode >= 0:
        return f"its process ended with status {exitcode} before the run did"
    name = signal.Signals(-exitcode).name
    return f"its process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
