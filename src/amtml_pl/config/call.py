"""Call a command from Python: the same job, with exceptions in place of exit statuses."""

from __future__ import annotations

import logging
import os
import random
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from amtml_pl.config.command import CommandJob, composed_by_hydra, status_of
from amtml_pl.config.overrides import STARTS_AGAIN, key_of
from amtml_pl.config.reporting import INTERRUPTED, PREEMPTED, command_state
from amtml_pl.errors import Interrupted, UserError
from amtml_pl.system.console import quieten
from amtml_pl.system.ranks import world_size
from amtml_pl.system.signals import restoring_handlers

Result = TypeVar("Result")
# The root logger, which Hydra configures, and those that `quieten` silences.
LOGGERS = ("", "pytorch_lightning", "lightning_fabric")
ONE_RUN = (
    "A Python call trains one run (got a sweep, which has several). Call the function once for each run, or "
    "start the sweep in a terminal."
)
RESUMABLE = "The call was interrupted. Repeat it to resume the run, also in a new process."


def call(name: str, work: Callable[[CommandJob], Result], words: Sequence[str]) -> Result:
    """Compose a command's job in this process, and return the result of its function.

    Args:
        name: of the command.
        work: the function of the job.
        words: arguments of the command, such as its overrides.

    Raises:
        UserError: for a mistake that the command reports, a sweep, or words that begin no job.
        Interrupted: after Ctrl-C or a kernel's interrupt.
    """
    command = shlex.join(["python", "-m", f"amtml_pl.{name}", *words])
    refuse_other_processes(command)
    if len(run := [word for word in words if word not in ("-m", "--multirun")]) < len(words):
        raise UserError(ONE_RUN, fix=shlex.join(["python", "-m", f"amtml_pl.{name}", "-m", *run]))
    results: list[Result] = []

    def job_with_result(job: CommandJob) -> None:
        results.append(work(job))

    job_with_result.__module__ = f"amtml_pl.{name}"  # from which Hydra names the job
    with process_as_before():
        sys.argv = [name, *words]  # as Hydra and its plugins read them
        command_state.begin(called=True)
        status, refusal = status_of(composed_by_hydra(name, job_with_result)), command_state.refusal
    if status == PREEMPTED:
        signal.raise_signal(signal.SIGTERM)  # to the caller's handler, which by default ends the process
    if status in (INTERRUPTED, PREEMPTED):
        again = [key for word in words if (key := key_of(word)) in STARTS_AGAIN]
        raise Interrupted(RESUMABLE + (f" Leave out {' and '.join(again)}." if again else ""))
    if refusal is not None:
        raise refusal
    if not results:
        raise UserError(f"The words begin no run (got {list(words)}, expected overrides).", fix=command)
    return results[0]


def refuse_other_processes(command: str) -> None:
    """Raise a UserError in a process or thread that cannot run a command."""
    if world_size() > 1:
        raise UserError(
            f"A Python call trains in one process (got {world_size()} processes, expected 1).",
            fix=f"give torchrun or srun the command: {command.replace('python ', '', 1)}",
        )
    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        raise UserError(
            "A run needs the main thread of Python (got another thread).",
            fix=f"call the function from the main thread, or run in a terminal: {command}",
        )


@contextmanager
def process_as_before() -> Iterator[None]:
    """Restore afterwards what Hydra and a command change for the whole process."""
    argv, report_thread = sys.argv, threading.excepthook
    hydra, composed = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    environment = dict(os.environ)
    restore_numbers = numbers_as_before()
    loggers = {logging.getLogger(name): logging.getLogger(name).level for name in LOGGERS}
    handlers = logging.root.handlers[:]
    with warnings.catch_warnings(), restoring_handlers(signal.SIGINT, signal.SIGTERM):
        GlobalHydra.instance().hydra = None  # the caller may have initialised it, too
        os.environ["HYDRA_FULL_ERROR"] = "1"  # pass exceptions on
        quieten()
        try:
            yield
        finally:
            command_state.begin()
            sys.argv, threading.excepthook = argv, report_thread
            GlobalHydra.instance().hydra, HydraConfig.instance().cfg = hydra, composed
            os.environ.clear()
            os.environ.update(environment)
            restore_numbers()
            logging.root.handlers[:] = handlers
            for logger, level in loggers.items():
                logger.setLevel(level)


def numbers_as_before() -> Callable[[], None]:
    """Return a function that restores random states, and whether torch is deterministic."""
    python = random.getstate()
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")  # the mistakes of a call need neither
    of_numpy = None if numpy is None else numpy.random.get_state()
    state = None if torch is None else torch.get_rng_state()
    is_deterministic, warns, fills = torch_settings()

    def restore() -> None:
        random.setstate(python)
        if numpy is not None:
            numpy.random.set_state(of_numpy)
        if (loaded := sys.modules.get("torch")) is not None:
            loaded.use_deterministic_algorithms(is_deterministic, warn_only=warns)
            loaded.utils.deterministic.fill_uninitialized_memory = fills
            if state is not None:
                loaded.set_rng_state(state)

    return restore


def torch_settings() -> tuple[bool, bool, bool]:
    """Return torch's settings of deterministic algorithms; its defaults if it is not imported."""
    if (torch := sys.modules.get("torch")) is None:
        return False, False, True
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
