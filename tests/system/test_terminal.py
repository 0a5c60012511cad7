"""Texts from other people do not control a terminal."""

import io
from pathlib import Path

import pytest
from rich.markup import escape
from rich.table import Table

from amtml_pl.errors import UserError
from amtml_pl.system.console import Terminal, console, error_console, printable

CLEARS_THE_SCREEN = "run\x1b[2J\x07\x9b1m"


@pytest.mark.parametrize("place", ["alone", "cell", "title", "column"])
def test_no_printed_text_controls_the_terminal(place):
    written = io.StringIO()
    terminal = Terminal(file=written, width=80)
    table = Table(title=CLEARS_THE_SCREEN if place == "title" else "runs")
    table.add_column(CLEARS_THE_SCREEN if place == "column" else "run")
    table.add_row(escape(CLEARS_THE_SCREEN) if place == "cell" else "first")
    terminal.print(escape(CLEARS_THE_SCREEN) if place == "alone" else table)
    assert "[2J" in written.getvalue()
    assert not {"\x1b", "\x07", "\x9b"} & set(written.getvalue())


def test_a_name_with_surrogates_can_be_printed_and_lines_and_columns_stay():
    assert printable("what:\n\tfix ± …") == "what:\n\tfix ± …"
    assert printable("a\udcffb\ud800").encode() == b"a b "


def test_every_command_prints_through_it():
    assert isinstance(console, Terminal)
    assert isinstance(error_console, Terminal)


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_unwritable_output_is_reported_once_and_not_tried_again():
    with FULL.open("w") as full:
        terminal = Terminal(file=full)
        with pytest.raises(
            UserError, match=r"output of the command cannot be written: No space left.*\n.*>FILE"
        ):
            terminal.print("the leaderboard")
        terminal.print("more of it")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
def test_an_error_that_cannot_be_printed_raises_nothing(monkeypatch):
    with FULL.open("w") as full:
        monkeypatch.setattr("sys.stderr", full)
        Terminal(stderr=True).print("error: this and that")
