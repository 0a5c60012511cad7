"""The declared keys of every command."""

from amtml_pl.config.command_keys import COMMANDS, help_of
from amtml_pl.config.key import leaves


def test_every_declared_key_has_a_line_of_help():
    for command, keys in COMMANDS.items():
        lines = help_of(command).splitlines()
        assert len(lines) == len([*leaves(keys)])
        assert [line for line in lines if len(line.split(maxsplit=1)) < 2] == []
