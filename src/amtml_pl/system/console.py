"""A console whose texts cannot command the terminal, whoever has chosen them."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.text import Text

from amtml_pl.errors import UserError


class Terminal(Console):
    """Shows only what can be printed: a run's record or a folder's name may hold escape sequences."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - as the base has them
        """Every text that is printed, alone or in a table, comes through here."""
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - as the base has them
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


def printable(text: str) -> str:
    """A text with a space for each character that is neither printable, nor a tab or the end of a line."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
