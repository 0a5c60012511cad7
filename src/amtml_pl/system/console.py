"""The two consoles of a command, and small formatting of numbers and times."""

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
    """A console that prints no escape sequences, such as those in a folder's name."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a text for printing, alone or in a table, without control characters."""
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as the base class does; raise a UserError if the output cannot be written."""
        try:
            super().print(*objects, **options)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.quiet = True
            # Keep Python from writing the rest when it ends; a file of a test has no number.
            with suppress(OSError, ValueError), Path(os.devnull).open("w") as devnull:
                os.dup2(devnull.fileno(), self.file.fileno())
            if not self.stderr:
                raise UserError(
                    f"The output of the command cannot be written: {error.strerror or error}.",
                    fix="free some disk space, or redirect the output to another file: >FILE",
                ) from error


def is_watched(console: Console) -> bool:
    """Return True if a console is an interactive terminal outside CI."""
    return console.file.isatty() and console.is_interactive and not os.environ.get("CI")


def printable(text: str, keep: str = "\n\t") -> str:
    """Return a text with a space for each character that is neither printable nor kept."""
    return "".join(c if c.isprintable() or c in keep else " " for c in text)


class ConsoleHandler(logging.Handler):
    """Print log records above any progress bar; a stream handler would write into it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message of a record."""
        console.print(self.format(record), markup=False)


for name in ("stdout", "stderr"):
    stream = getattr(sys, name)
    if stream is None:  # closed by the caller, as by >&-
        setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for the process
    elif isinstance(stream, io.TextIOWrapper):  # in a locale without ±, a command prints ?
        stream.reconfigure(errors="replace")


# A log has no width limit: a table there is as wide as it needs to be. A notebook shows about 110 columns,
# and all text below a cell as one output, while rich would add an output for each line.
width = 110 if "ipykernel" in sys.modules else 200
console = Terminal(
    highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else width, quiet=not is_rank_zero(),
    force_jupyter=False,
)  # fmt: skip
error_console = Terminal(highlight=False, soft_wrap=True, stderr=True, force_jupyter=False)


def quieten() -> None:
    """Silence warnings of libraries that a user cannot act on."""
    threading.excepthook = report_thread
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # it warns of each attempt to download
    for message in (
        ".*does not have many workers.*",  # whole batches are made by one tensor operation
        ".*number of training batches .* smaller than the logging interval.*",  # small data sets
        ".*Checkpoint directory .* exists and is not empty.*",  # a run that is resumed
        ".*isinstance.treespec, LeafSpec.. is deprecated.*",  # inside Lightning
    ):
        warnings.filterwarnings("ignore", message)


def report_thread(failed: threading.ExceptHookArgs) -> None:
    """Print an exception that ended a thread, except in TensorBoard's, which the fit reports."""
    if not type(failed.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(failed)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``2 runs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours, such as ``3 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
