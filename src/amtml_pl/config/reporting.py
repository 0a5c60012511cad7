"""End a command: one message for a mistake, and the exit status."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rich.markup import escape

from amtml_pl.errors import AnotherFailed, Preempted, UserError
from amtml_pl.system.console import counted, error_console
from amtml_pl.system.limits import refuse_few_threads, refused_by_system
from amtml_pl.system.ranks import is_rank_zero, rank, world_size
from amtml_pl.system.signals import prepare_to_end

# EX_TEMPFAIL of sysexits.h: schedulers try again later.
PREEMPTED = 75
INTERRUPTED = 130  # of a shell, after Ctrl-C
# Seconds for which a rank waits for the one that reports, as its own end would stop that one.
REPORT_TIMEOUT = 5.0


@dataclass
class CommandState:
    """The progress of this process's command.

    Attributes:
        begun: True after a job has begun; then Hydra's status 1 is not a mistake in the command.
        sweeps: True if that job is one of a multirun, whose other jobs a mistake does not end.
        mistakes: the messages of mistakes that have ended jobs of a multirun.
        called: True if a Python function runs the command, which raises what is not printed then.
        refusal: the mistake that has ended such a call.
    """

    begun: bool = False
    sweeps: bool = False
    mistakes: list[str] = field(default_factory=list)
    called: bool = False
    refusal: UserError | None = None

    @property
    def typed_in(self) -> str:
        """Return where the user has written the overrides."""
        return "argument" if self.called else "command line"

    def begin(self, *, called: bool = False) -> None:
        """Forget the command before."""
        self.begun = self.sweeps = False
        self.mistakes.clear()
        self.called, self.refusal = called, None


command_state = CommandState()


@contextmanager
def reporting(
    repeat: Callable[[], str], *, show_traceback: bool, folder: Path | None = None, resumes: bool = True
) -> Iterator[None]:
    """Report a mistake with one message, and an interruption with the command that continues.

    Args:
        repeat: returns the command line that repeats the command.
        show_traceback: True to print the traceback of a mistake.
        folder: created by Hydra for the command; removed if a mistake has left it empty.
        resumes: True if the command continues where it was stopped, instead of starting again.
    """
    try:
        refuse_other_encoding(folder or Path())
        refuse_few_threads()
        yield
    except AnotherFailed:
        wait_for_other_rank()
        sys.exit(2)
    except Exception as error:
        mistake = refused_by_system(error, any_file=not resumes)
        if mistake is None and isinstance(error, UserError):
            mistake = error
        if mistake is None:  # a defect: show its traceback
            raise
        if show_traceback:
            traceback.print_exc()
        if folder is not None:
            with suppress(OSError):  # up to a folder that is not empty
                remove_untouched(folder)
        report_mistake(mistake)
    except (KeyboardInterrupt, Preempted) as stop:
        what, status = (
            ("Preempted", PREEMPTED) if isinstance(stop, Preempted) else ("Interrupted", INTERRUPTED)
        )
        if not command_state.called:
            prepare_to_end()
        if is_rank_zero() and not command_state.called:
            how = "To resume, run" if resumes else "To start again, run"
            error_console.print(f"{what}. {how}:\n  {escape(repeat())}")
        sys.exit(status)


def refuse_other_encoding(folder: Path) -> None:
    """Raise a UserError if a folder's name is not UTF-8, as TensorBoard requires."""
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        name = os.fsencode(folder).decode(errors="backslashreplace")
        raise UserError(
            f"The name of the run folder {name} is not UTF-8 text.",
            fix="set paths.outputs to a folder whose path is UTF-8 text",
        ) from None


def status_of_exit(stop: SystemExit) -> int:
    """Return the exit status of a process that the exception ends."""
    return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def report_mistake(error: UserError) -> None:
    """Print the message for a mistake, and exit; a sweep continues with its next job."""
    if command_state.called:
        command_state.refusal = error
    elif is_reporting_rank(str(error)):
        whose = f"rank {rank()}: " if world_size() > 1 else ""
        error_console.print(f"[bold red]error:[/] {whose}{escape(str(error))}")
    else:
        wait_for_other_rank()
    command_state.mistakes.append(str(error))
    if not command_state.sweeps:
        sys.exit(2)


def report_typed(mistakes: list[str]) -> None:
    """Print what is wrong with the command line, in one process of a run."""
    if not is_rank_zero():
        return
    count = counted(len(mistakes), "mistake")
    listed = "\n".join(f"  - {mistake}" for mistake in mistakes)
    if command_state.called:
        command_state.refusal = UserError(f"The overrides have {count}:\n{listed}")
        return
    error_console.print(f"[bold red]error:[/] {escape(f'The command line has {count}:')}\n{escape(listed)}")


def is_reporting_rank(message: str) -> bool:
    """Return True if this process reports a message of the whole run."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_initialized():  # until then all have the same mistake
        return is_rank_zero()
    # only here: it needs torch, which a mistake may precede
    from amtml_pl.system.collectives import is_first_to_report

    return is_first_to_report(message)


def wait_for_other_rank() -> None:
    """Wait until another rank has reported its error and ends this process."""
    with suppress(Preempted):
        time.sleep(REPORT_TIMEOUT)


def remove_untouched(folder: Path) -> None:
    """Remove a run folder without files, and ``runs/<experiment>`` and ``runs`` if they are empty."""
    if all(file.name == ".lock" for file in folder.iterdir()):
        (folder / ".lock").unlink(missing_ok=True)
        folder.rmdir()
        if folder.parent.parent.name == "runs":
            folder.parent.rmdir()
            folder.parent.parent.rmdir()
