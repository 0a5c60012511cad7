"""What every command of the project does alike: its console, its exit status, its silence."""

from __future__ import annotations

import logging
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from rich.console import Console
from rich.markup import escape

from amtml_pl.errors import LeaderFailed, Preempted, UserError
from amtml_pl.ranks import leads, rank, world_size
from amtml_pl.stopping import obey_at_once

# Without a terminal there is no width to keep to: a table in a log is as wide as it needs to be.
console = Console(
    highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200, quiet=not leads()
)
error_console = Console(highlight=False, soft_wrap=True, stderr=True)


# The status that tells a scheduler to try again later: EX_TEMPFAIL of sysexits.h.
PREEMPTED = 75


@dataclass
class Progress:
    """How far this process has come.

    Attributes:
        begun: whether a job has begun, so that Hydra's own status 1 is no mistake in the command any more.
        mistakes: the messages of the mistakes that have ended jobs of a multirun.
    """

    begun: bool = False
    mistakes: list[str] = field(default_factory=list)


progress = Progress()


def start(run: Callable[[], object]) -> None:
    """Runs a Hydra main function. Exit status: 2 for a mistake of the user's, else what the run left.

    Hydra ends with 1 for a mistake in the command line, before any job has begun.
    """
    quieten()
    obey_at_once()
    progress.begun = False
    progress.mistakes.clear()
    try:
        run()
    except SystemExit as stop:
        if stop.code == 1 and not progress.begun:
            sys.exit(2)
        raise
    if progress.mistakes:
        sys.exit(2)


@contextmanager
def reporting(module: str, *, debug: bool, folder: Path | None = None) -> Iterator[None]:
    """Ends a command as every command ends: a mistake with one message, Ctrl-C with how to go on.

    Args:
        module: of the command, such as ``amtml_pl.train``.
        debug: whether a mistake shows its traceback.
        folder: what Hydra has made for the command, removed where a mistake has left nothing in it.
    """
    try:
        yield
    except UserError as error:
        if debug:
            traceback.print_exc()
        if folder is not None:
            remove_untouched(folder)
        report_mistake(error)
    except LeaderFailed:
        sys.exit(2)
    except KeyboardInterrupt:
        if leads():
            error_console.print(f"Interrupted. This continues where it stopped:\n  {escape(typed(module))}")
        sys.exit(130)
    except Preempted:
        if leads():
            error_console.print(f"Preempted. This continues where it stopped:\n  {escape(typed(module))}")
        sys.exit(PREEMPTED)


def typed(module: str) -> str:
    """The command line of this process."""
    return shlex.join(["python", "-m", module, *HydraConfig.get().overrides.task])


def report_mistake(error: UserError) -> None:
    """Prints the one message that a user needs. A sweep goes on with its next job; all else ends here."""
    whose = f"rank {rank()}: " if world_size() > 1 else ""
    error_console.print(f"[bold red]error:[/] {whose}{escape(str(error))}")
    progress.mistakes.append(str(error))
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        sys.exit(2)


def remove_untouched(folder: Path) -> None:
    """Removes the run folder that Hydra made, where the run ended before it wrote anything."""
    if folder.is_dir() and all(file.name == ".lock" for file in folder.iterdir()):
        (folder / ".lock").unlink(missing_ok=True)
        folder.rmdir()


def quieten() -> None:
    """Mutes what a user cannot act on."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # whole batches are made by one tensor operation
        ".*number of training batches .* smaller than the logging interval.*",  # small data sets
        ".*Checkpoint directory .* exists and is not empty.*",  # a run that is resumed
        ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # Lightning's own affair
    ):
        warnings.filterwarnings("ignore", message)
