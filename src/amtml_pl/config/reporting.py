"""How every command ends: its exit status, and one message for a mistake."""

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
# The first process of a run that ends ends the others; it should be the one that says why.
SECONDS_TO_SAY_WHY = 5.0


@dataclass
class CommandState:
    """How far this process has come.

    Attributes:
        begun: whether a job has begun, so that Hydra's own status 1 is no mistake in the command any more.
        sweeps: whether that job is one of a multirun, whose other jobs a mistake does not end.
        mistakes: the messages of the mistakes that have ended jobs of a multirun.
    """

    begun: bool = False
    sweeps: bool = False
    mistakes: list[str] = field(default_factory=list)


command_state = CommandState()


@contextmanager
def reporting(
    repeat: Callable[[], str], *, debug: bool, folder: Path | None = None, resumes: bool = True
) -> Iterator[None]:
    """End a command as every command ends: a mistake with one message, Ctrl-C with what continues it.

    Args:
        repeat: gives what is typed to repeat the command.
        debug: whether a mistake shows its traceback.
        resumes: whether the command goes on where it was stopped, and does not begin again.
        folder: what Hydra has made for the command, removed where a mistake has left nothing in it.
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
        if mistake is None:  # a defect, whose traceback is wanted
            raise
        if debug:
            traceback.print_exc()
        if folder is not None:
            with suppress(OSError):  # an empty folder harms less than a second message
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
    """Raise a UserError for a run folder whose name is not UTF-8: TensorBoard cannot write there.

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
    """What to type after a command was stopped; of several processes of a run the first one says it."""
    if is_rank_zero():
        how = "This continues where it stopped" if resumes else "This begins again"
        error_console.print(f"{what}. {how}:\n  {escape(repeat())}")


def report_mistake(error: UserError) -> None:
    """Prints the one message that a user needs. A sweep goes on with its next job; all else ends here."""
    if is_reporting_rank(str(error)):
        whose = f"rank {rank()}: " if world_size() > 1 else ""
        error_console.print(f"[bold red]error:[/] {whose}{escape(str(error))}")
    else:
        wait_for_other_rank()
    command_state.mistakes.append(str(error))
    if not command_state.sweeps:
        sys.exit(2)


def report_typed(mistakes: list[str]) -> None:
    """Prints what is wrong with the command line; of several processes of a run the first one does."""
    if not is_rank_zero():
        return
    count = f"{len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}"
    listed = "\n".join(f"  - {mistake}" for mistake in mistakes)
    error_console.print(f"[bold red]error:[/] {escape(f'The command line has {count}:')}\n{escape(listed)}")


def is_reporting_rank(message: str) -> bool:
    """Whether this is the process of the run that says something which others may have to say too."""
    if not has_met():  # until then all of them make the same mistake
        return is_rank_zero()
    # only here: it needs torch, which a mistake may precede
    from amtml_pl.system.collectives import is_first_to_say

    return is_first_to_say(message)


def has_met() -> bool:
    """Whether this process is connected with the others of its run."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_initialized()


def wait_for_other_rank() -> None:
    """Waits for another process of the run to say why it ends, and so to end this one."""
    with suppress(Preempted):
        time.sleep(SECONDS_TO_SAY_WHY)


def remove_untouched(folder: Path) -> None:
    """Removes the run folder that Hydra made, where the run ended before it wrote anything.

    Of the folders above it, those that are empty then: ``runs/<experiment>`` and ``runs``.
    """
    if not folder.is_dir() or any(file.name != ".lock" for file in folder.iterdir()):
        return
    (folder / ".lock").unlink(missing_ok=True)
    folder.rmdir()
    if folder.parent.parent.name == "runs":
        with suppress(OSError):  # until one that is not empty
            folder.parent.rmdir()
            folder.parent.parent.rmdir()
