"""Writes docs/reference.md: every key and choice of the configuration, from YAML files and docstrings.

Run it after a change of either: ``python docs/reference.py``. A test holds the file against what this gives.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from docstring_parser import parse
from hydra.utils import get_object
from omegaconf import OmegaConf

from amtml_pl.config_files import config_directory

REFERENCE = Path(__file__).with_name("reference.md")
# In the order in which a batch meets them; what composes them comes last.
GROUPS = {
    "dataset": "Where images come from",
    "data": "Splits, batches and views",
    "augment": "What a view does to an image",
    "student": "The network to train",
    "teacher": "Whom it learns from: `teacher=[resnet32,resnet56]`",
    "weighting": "How the teachers are weighed",
    "loss": "The terms of the loss: `loss=[ce,kd]`",
    "loop": "Who steps what",
    "optimizer": "The optimiser",
    "scheduler": "The learning rate over the epochs",
    "trainer": "Where, and for how long",
    "logger": "Who is told of it: `logger=[]` for none",
    "method": "Methods: loss, weighting, loop and their strength at once",
    "experiment": "Problems and published experiments",
    "sweep": "Ready multiruns",
    "launcher": "Where the jobs of a multirun run",
}
COMMANDS = {"evaluate", "report", "export", "predict", "cache", "benchmark", "doctor"}
LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w.@/]+):(?: +(?P<value>.*?))??(?: +# (?P<comment>.*))?$")


class Key(NamedTuple):
    """One key of a YAML file.

    Attributes:
        path: dotted.
        value: as written; empty for a mapping.
        comment: what the file says behind it.
    """

    path: str
    value: str
    comment: str


def main() -> None:
    """Writes the reference."""
    REFERENCE.write_text(reference())


def reference() -> str:
    """The whole page, in Markdown."""
    lines = [
        "# Configuration reference",
        "",
        "Every key and every choice, from [conf/](../conf) and the docstrings (`python docs/reference.py`",
        "writes this page). `python -m amtml_pl.train … --cfg job` shows what a command line comes to, and",
        "[configuration.md](configuration.md) what is said of mistakes.",
        "",
        "## Root keys",
        "",
        *table_of_keys(key for key in keys(config_directory() / "train.yaml") if not is_internal(key.path)),
    ]
    for group, title in GROUPS.items():
        lines += ["", f"## {group}: {title[0].lower()}{title[1:]}", "", *group_section(group)]
    lines += ["", "## The other commands", ""]
    for command in sorted(COMMANDS):
        file = config_directory() / f"{command}.yaml"
        if file.is_file():
            own = [key for key in keys(file) if not is_internal(key.path)]
            lines += [f"### `python -m amtml_pl.{command}`", "", header(file), "", *table_of_keys(own), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def is_internal(path: str) -> bool:
    """Whether a key is Hydra's, or a placeholder that groups fill."""
    return path.split(".")[0] in ("defaults", "hydra", "teacher", "loss") or path.startswith("override")


def keys(file: Path) -> Iterator[Key]:
    """The keys of a YAML file, in order, as they are written."""
    parents: list[tuple[int, str]] = []
    for line in file.read_text().splitlines():
        found = LINE.match(line)
        if found is None:
            continue
        indent = len(found["indent"])
        while parents and parents[-1][0] >= indent:
            parents.pop()
        path = ".".join([*(name for _, name in parents), found["key"]])
        value, comment = found["value"] or "", found["comment"] or ""
        if value.startswith("# "):
            value, comment = "", value.removeprefix("# ")
        yield Key(path, value, comment)
        if not value:
            parents.append((indent, found["key"]))


def table_of_keys(found: Iterator[Key] | list[Key]) -> list[str]:
    """A table of keys with their defaults."""
    rows = [f"| `{key.path}` | {code(key.value)} | {cell(key.comment)} |" for key in found]
    return ["| key | default | what |", "|---|---|---|", *rows] if rows else []


def group_section(group: str) -> list[str]:
    """A group's choices, each with its file's first words, then the arguments of what they build."""
    files = sorted((config_directory() / group).glob("*.yaml"))
    lines = ["| choice | what |", "|---|---|"]
    lines += [f"| `{file.stem}` | {cell(header(file))} |" for file in files]
    settings = config_directory() / group / "source" / "trained.yaml"
    if settings.is_file():
        lines += ["", f"What every choice has besides its network ({header(settings)})", ""]
        lines += table_of_keys([*keys(settings)])
    targets: dict[str, list[Path]] = {}
    for file in files:
        for target in targets_of(OmegaConf.to_container(OmegaConf.load(file), resolve=False)):
            targets.setdefault(target, []).append(file)
    for target, used_by in targets.items():
        if target.startswith("amtml_pl."):
            lines += ["", *arguments(target, used_by)]
    return lines


def targets_of(node: object) -> Iterator[str]:
    """The constructors that a node names, outer ones first."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for child in node.values():
            yield from targets_of(child)
    elif isinstance(node, list):
        for child in node:
            yield from targets_of(child)


def arguments(target: str, used_by: list[Path]) -> list[str]:
    """What a constructor takes, as its docstring has it, and what the YAML files set."""
    built: Any = get_object(target)
    told = parse(inspect.getdoc(built) or "")
    meaning = {argument.arg_name: argument.description or "" for argument in told.params}
    parameters = inspect.signature(built).parameters
    set_by = {key.path.split(".")[-1]: key.value for file in reversed(used_by) for key in keys(file)}
    rows = []
    for name, parameter in parameters.items():
        if name not in meaning or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = set_by.get(name) or (
            "" if parameter.default is parameter.empty else repr(parameter.default)
        )
        rows.append(f"| `{name}` | {code(default)} | {cell(meaning[name])} |")
    if not rows:
        return []
    choices = ", ".join(dict.fromkeys(f"`{file.stem}`" for file in used_by))
    return [
        f"**`{target}`** ({choices}): {cell(told.short_description or '')}",
        "",
        "| argument | value | what |",
        "|---|---|---|",
        *rows,
    ]


def header(file: Path) -> str:
    """The comment that a file begins with: its first paragraph, in one line."""
    words = []
    for line in file.read_text().splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#") or (words and line.removeprefix("#")[:3].isspace()):
            break
        text = line.removeprefix("#").strip()
        if words and (not text or re.match(r"(Source|Command|Cost|Expected|Needs|Teachers): ", text)):
            break
        words.append(text)
    return " ".join(words)


def code(value: str) -> str:
    """A value as it is typed; nothing for none."""
    return f"`{value.replace('|', chr(92) + '|')}`" if value else ""


def cell(text: str) -> str:
    """Text in one line of a table, where only what is code may look like a tag."""
    parts = " ".join(text.split()).replace("|", "\\|").replace("``", "`").split("`")
    return "`".join(part if place % 2 else part.replace("<", "&lt;") for place, part in enumerate(parts))


if __name__ == "__main__":
    main()
