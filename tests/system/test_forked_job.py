"""A forked job returns its result, reports its crash, and gets each signal once."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from amtml_pl.system.forked_job import ProcessCrashedError, can_fork, run_forked

pytestmark = pytest.mark.skipif(not can_fork(), reason="no fork here")

KILLED_PARENT = """
import os, sys, time
from amtml_pl.system.forked_job import run_forked

def work():
    print(os.getpid(), flush=True)
    time.sleep(60)

run_forked(work)
"""


def test_a_forked_job_returns_its_result_and_changes_nothing_in_this_process():
    held = [0]

    def function():
        held[0] = 1
        return os.getpid(), os.getpgid(0)

    process, group = run_forked(function)
    assert process != os.getpid()
    assert group == process
    assert held == [0]


@pytest.mark.parametrize(
    ("end", "reason"),
    [(lambda: os.kill(os.getpid(), signal.SIGKILL), r"ended by SIGKILL \(possibly out of memory\)"),
     (lambda: os._exit(3), "too early, with status 3")],
)  # fmt: skip
def test_a_process_that_ends_too_early_is_reported_with_its_signal_or_status(end, reason):
    with pytest.raises(ProcessCrashedError, match=reason):
        run_forked(end)


def interrupted_while(function, number):
    threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
    return run_forked(function)


def test_ctrl_c_reaches_the_function_once_and_its_result_is_awaited():
    def function():
        try:
            time.sleep(30)
        except KeyboardInterrupt:
            time.sleep(0.5)  # a second one would end this
            return "put in order"

    assert interrupted_while(function, signal.SIGINT) == "put in order"


def test_sigterm_ends_a_function_that_ignores_it_and_this_process_with_143():
    with pytest.raises(SystemExit) as stop:
        interrupted_while(lambda: time.sleep(30), signal.SIGTERM)
    assert stop.value.code == 143


def test_a_forked_job_ends_when_its_parent_is_killed():
    words = [sys.executable, "-c", KILLED_PARENT]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        process = int(parent.stdout.readline())
        parent.kill()
    assert ended_within(process, seconds=10)


def ended_within(process, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
