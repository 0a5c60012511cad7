"""Read YAML files of other people as data only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from amtml_pl.system.files import read_text

MOST_BYTES = 1 << 20  # a configuration has some 10 KiB
MOST_LEVELS = 50


def read_plain_yaml(file: Path) -> Any:
    """Return a YAML file as plain values; raise a ValueError for anything else.

    Nothing is resolved: an interpolation, a tag, an anchor or an alias makes the file invalid. Without
    aliases the time is linear in the file's size.
    """
    text = read_text(file, MOST_BYTES)
    try:
        refuse_references(text)
        tree = yaml.load(text, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error
    refuse_special_values(tree, "")
    return tree


def refuse_references(text: str) -> None:
    """Raise a ValueError if YAML has tags, anchors, aliases, or too many levels."""
    level = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        named = {"anchor or alias": getattr(event, "anchor", None), "tag": getattr(event, "tag", None)}
        if level > MOST_LEVELS:
            raise ValueError(f"line {event.start_mark.line + 1} has more than {MOST_LEVELS} nested levels")
        for what, value in named.items():
            if value is not None:
                line = event.start_mark.line + 1
                raise ValueError(f"line {line} has the {what} {value:.80}, expected plain values")


def refuse_special_values(value: object, path: str) -> None:
    """Raise a ValueError for nested values like dates, interpolations and null keys."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key is None:
                raise ValueError(f"{path or 'the file'} has the key null, expected a name")
            refuse_special_values(key, f"a key of {path or 'the file'}")
            refuse_special_values(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for position, child in enumerate(value):
            refuse_special_values(child, f"{path}[{position}]")
    elif not (value is None or isinstance(value, str | int | float)):
        raise ValueError(f"{path:.200} is a {type(value).__name__}, expected a string or a number")
    elif isinstance(value, str) and ("${" in value or value == "???"):
        raise ValueError(f"{path:.200}={value!r:.80} is an interpolation or missing, expected a plain value")
