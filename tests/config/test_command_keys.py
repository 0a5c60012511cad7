"""The declared keys of every command."""

from amtml_pl.config.command_keys import COMMANDS
from amtml_pl.config.key import leaves


def test_every_declared_key_has_a_line_of_help():
    keys = [key for declared in COMMANDS.values() for key in leaves(declared)]
    assert [path for path, key in keys if not key.help or "\n" in key.help] == []
