"""The two consoles of a command: texts that cannot command the terminal, and numbers with nouns."""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from amtml_pl.errors import UserError
from amtml_pl.system.ranks import is_rank_zero


class Terminal(Console):
    """Shows only what can be printed: a run's record or a folder's name may hold escape sequences."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Every text that is printed, alone or in a table, comes through here."""
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints as the base does; where an error cannot be said either, the exit status still says it.

        Raises:
            UserError: if the output cannot be written, as on a full disk.
        """
        try:
            super().print(*objects, **options)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.give_up()
            if not self.stderr:
                raise UserError(
                    f"What the command says cannot be written to its output: {error.strerror or error}.",
                    fix="free some space there, or send the output elsewhere: >FILE",
                ) from error

    def give_up(self) -> None:
        """Says nothing more, and keeps Python from trying once more to write the rest when it ends."""
        self.quiet = True
        with suppress(OSError, ValueError):  # a file of a test has no number
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)


def is_watched(console: Console) -> bool:
    """Whether a console is a terminal with a person before it, who sees what moves; no log of a CI system."""
    return console.file.isatty() and console.is_interactive and not os.environ.get("CI")


def printable(text: str, keep: str = "\n\t") -> str:
    """Return a text with a space for each character that is neither printable nor kept."""
    return "".join(c if c.isprintable() or c in keep else " " for c in text)


class ConsoleHandler(logging.Handler):
    """Prints what is logged as the console prints all else, so above a line that stays in its place.

    A handler of a stream would hold the standard output of before that line, and write into its middle.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Prints the message."""
        console.print(self.format(record), markup=False)


for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    if stream is None:  # closed by the caller, as by >&-: what is said is nobody's to hear
        setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for the process
    elif isinstance(stream, io.TextIOWrapper):  # in a locale without ±, a command says ?
        stream.reconfigure(errors="replace")


# Without a terminal there is no width to keep to: a table in a log is as wide as it needs to be.
console = Terminal(
    highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200, quiet=not is_rank_zero()
)


error_console = Terminal(highlight=False, soft_wrap=True, stderr=True)


def quieten() -> None:
    """Mutes what a user cannot act on."""
    threading.excepthook = report_thread
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # whole batches are made by one tensor operation
        ".*number of training batches .* smaller than the logging interval.*",  # small data sets
        ".*Checkpoint directory .* exists and is not empty.*",  # a run that is resumed
        ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # Lightning's own affair
    ):
        warnings.filterwarnings("ignore", message)


def report_thread(failed: threading.ExceptHookArgs) -> None:
    """Print what has ended a thread; not of TensorBoard's, whose error the fit meets at its next point."""
    if not type(failed.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(failed)


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
