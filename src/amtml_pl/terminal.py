"""A console whose texts cannot command the terminal, whoever has chosen them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text


class Terminal(Console):
    """Shows only what can be printed: a run's record or a folder's name may hold escape sequences."""

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - as the base has them
        """Every text that is printed, alone or in a table, comes through here."""
        return super().render_str(printable(text), **options)


def printable(text: str) -> str:
    """A text with a space for each character that is neither printable, nor a tab or the end of a line."""
    return "".join(c if c.isprintable() or c in "\n\t" else " " for c in text)
