"""Run one job in its own process, to keep a crash from ending the others."""

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

from amtml_pl.system.signals import restoring_handlers

Result = TypeVar("Result")
PR_SET_PDEATHSIG = 1
PASSED_ON = (signal.SIGINT, signal.SIGTERM)


class ProcessCrashedError(Exception):
    """A process ended without a result, as by a segmentation fault."""


def can_fork() -> bool:
    """Return True if a process can be forked: on Linux, before an accelerator is used."""
    torch = sys.modules.get("torch")
    uses_cuda = torch is not None and torch.cuda.is_initialized()
    return sys.platform == "linux" and threading.current_thread() is threading.main_thread() and not uses_cuda


def run_forked(function: Callable[[], Result]) -> Result:
    """Return the result of a function that runs in its own process and process group.

    A fork shares all imports, so that the function starts at once. Ctrl-C and SIGTERM are passed on to it
    once, and then this process waits for it. If this process is killed, the other one gets SIGTERM too.

    Args:
        function: returns a picklable value, and raises nothing.

    Raises:
        ProcessCrashedError: if it ended without a result; the message names the signal or status.
        KeyboardInterrupt: after Ctrl-C, when the process has ended.
        SystemExit: with 143 after SIGTERM, if the function does not decide otherwise.
    """
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=run_in_child, args=(function, sender, os.getpid()), daemon=False)
    with passing_on_signals(process) as received:
        sender.close()
        try:
            result: Result = receiver.recv()
        except EOFError:
            process.join()
            if signal.SIGINT in received:
                raise KeyboardInterrupt from None
            if signal.SIGTERM in received:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise ProcessCrashedError(exit_reason(process.exitcode)) from None
        process.join()
    return result


def run_in_child(function: Callable[[], Result], sender: Connection, parent: int) -> None:
    """Run the function in the forked process and send its result to the parent."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    os.setpgid(0, 0)  # Ctrl-C in a terminal reaches only the parent, which passes it on once
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # it has gone already
        sys.exit(1)
    sender.send(function())


@contextmanager
def passing_on_signals(process: BaseProcess) -> Iterator[list[int]]:
    """Start a process, pass SIGINT and SIGTERM on to it, and yield those received."""
    received: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, number)

    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)  # later signals wait until they can be passed on
    process.start()
    with restoring_handlers(*PASSED_ON):
        for number in PASSED_ON:
            signal.signal(number, pass_on)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        yield received


def exit_reason(exitcode: int | None) -> str:
    """Return the reason why a process ended, as part of a sentence."""
    if exitcode is None or exitcode >= 0:
        return f"its process ended too early, with status {exitcode}"
    name = signal.Signals(-exitcode).name
    return f"its process was ended by {name}" + (" (possibly out of memory)" if name == "SIGKILL" else "")
