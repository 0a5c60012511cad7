"""Read the comment at the top of a YAML file of ``conf/``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

LABEL = re.compile(r"(Source|Command|Cost|Expected|Needs|Teachers): ")


def header(file: Path) -> str:
    """Return the first paragraph of a file's first comment, in one line."""
    words: list[str] = []
    for line in comment_lines(file):
        text = line.strip()
        if words and (not text or line[:3].isspace() or LABEL.match(text)):
            break
        words.append(text)
    return " ".join(words)


def usage(file: Path) -> str:
    """Return the command that a file's first comment names; empty if it names none."""
    commands = (line.partition("Command: ")[2] for line in comment_lines(file))
    return next(filter(None, map(str.strip, commands)), "")


def comment_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a file's first comment, with what follows the number sign."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#"):
            return
        yield line.removeprefix("#")


def summary(file: Path) -> str:
    """Return the first sentence of a file's header, without references in parentheses."""
    plain = re.sub(r"\s*\([^()]*(https?://|docs/|src/|et al)[^()]*\)", "", header(file))
    return re.split(r"\.(?:\s|$)", plain, maxsplit=1)[0]
