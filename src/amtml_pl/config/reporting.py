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
from amtml_pl.system.console import error_console
from amtml_pl.system.limits import refuse_few_threads, refused_by_system
from amtml_pl.system.ranks import is_rank_zero, rank, world_size
from amtml_pl.system.signals import prepare_to_end

# The status that tells a scheduler to try again later: EX_TEMPFAIL of sysexits.h.
PREEMPTED = 75
INTERRUPTED = 130  # of a shell, after Ctrl-C
# How long a process waits for the one that reports, before its end would stop that one.
SECONDS_TO_SAY_WHY = 5.0


@dataclass
class CommandState:
    """The progress of this process's command.

    Attributes:
        begun: whether a job has begun, after which Hydra's own status 1 is not a mistake in the command.
        sweeps: whether that job is one of a multirun, whose other jobs a mistake does not end.
        mistakes: the messages of mistakes that have ended jobs of a multirun.
    """

    begun: bool = False
    sweeps: bool = False
    mistakes: list[str] = field(default_factory=list)


command_state = CommandState()


@contextmanager
def reporting(
    repeat: Callable[[], str], *, debug: bool, folder: Path | None = None, resumes: bool = True
) -> Iterator[None]:
    """Report a mistake with one message, and an interruption with the command that continues.

    Args:
        repeat: returns the command line that repeats the command.
        debug: whether a mistake shows its traceback.
        resumes: whether the command continues where it was stopped, and does not start again.
        folder: created by Hydra for the command; removed if a mistake has left it empty.
    """
    try:
        refuse_name_without_text(folder)
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
        if debug:
            traceback.print_exc()
        if folder is not None:
            with suppress(OSError):  # an empty folder is better than a second message
                remove_untouched(folder)
        report_mistake(mistake)
    except KeyboardInterrupt:
        prepare_to_end()
        print_resume_hint("Interrupted", repeat, resumes=resumes)
        sys.exit(INTERRUPTED)
    except Preempted:
        prepare_to_end()
        print_resume_hint("Preempted", repeat, resumes=resumes)
        sys.exit(PREEMPTED)


def refuse_name_without_text(folder: Path | None) -> None:
    """Raise if a run folder's name is not UTF-8, as TensorBoard cannot write there.

    Raises:
        UserError: naming the folder.
    """
    try:
        str(folder or "").encode()
    except UnicodeEncodeError:
        name = os.fsencode(str(folder)).decode(errors="backslashreplace")
        raise UserError(
            f"The run folder {name} has a name that is not UTF-8 text.",
            fix="rename the folder, or choose another one: paths.outputs=FOLDER",
        ) from None


def print_resume_hint(what: str, repeat: Callable[[], str], *, resumes: bool) -> None:
    """Print, in one process, the command to type after an interruption."""
    if is_rank_zero():
        how = "This continues where it stopped" if resumes else "This begins again"
        error_console.print(f"{what}. {how}:\n  {escape(repeat())}")


def report_mistake(error: UserError) -> None:
    """Print the message for a mistake, and exit; a sweep continues with its next job."""
    if is_reporting_rank(str(error)):
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
    count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
    listed = "\n".join(f"  - {mistake}" for mistake in mistakes)
    error_console.print(f"[bold red]error:[/] {escape(f'The command line has {count}:')}\n{escape(listed)}")


def is_reporting_rank(message: str) -> bool:
    """Return whether this process is the one that reports a message of the whole run."""
    if not has_met():  # until then all have the same mistake
        return is_rank_zero()
    # only here: it needs torch, which a mistake may precede
    from amtml_pl.system.collectives import is_first_to_report

    return is_first_to_report(message)


def has_met() -> bool:
    """Return whether this process is connected with the others of its run."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()


def wait_for_other_rank() -> None:
    """Wait for another process of the run to report its error and end this one."""
    with suppress(Preempted):
        time.sleep(SECONDS_TO_SAY_WHY)


def remove_untouched(folder: Path) -> None:
    """Remove the run folder that Hydra made, if the run ended before it wrote anything.

    The folders above it, ``runs/<experiment>`` and ``runs``, go too if they are empty then.
    """
    if not folder.is_dir() or any(file.name != ".lock" for file in folder.iterdir()):
        return
    (folder / ".lock").unlink(missing_ok=True)
    folder.rmdir()
    if folder.parent.parent.name == "runs":
        with suppress(OSError):  # until one that is not empty
            folder.parent.rmdir()
            folder.parent.parent.rmdir()
