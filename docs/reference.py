"""Write docs/reference.md: every key and choice of the configuration, from YAML files and docstrings.

Run it after a change of either: ``python docs/reference.py``. A test holds the file against what this gives.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from docstring_parser import parse
from hydra.utils import get_object
from omegaconf import OmegaConf

from amtml_pl.config.command_keys import COMMANDS
from amtml_pl.config.data_keys import DATA
from amtml_pl.config.headers import header
from amtml_pl.config.key import Key as Declared
from amtml_pl.config.key import leaves
from amtml_pl.config.network_keys import TEACHER
from amtml_pl.config.paths import config_directory
from amtml_pl.config.schema import COMPOSES, KEYS

REFERENCE = Path(__file__).with_name("reference.md")
# In the order in which a batch meets them; what composes them comes last.
GROUPS = {
    **{group: each.help for group, each in KEYS.items() if (config_directory() / group).is_dir()},
    "augment": DATA["augment"].help,
    **{group: each.help for group, each in COMPOSES.items() if (config_directory() / group).is_dir()},
    "hydra/launcher": "our own launcher, chosen by `launcher=ray`",
    "hydra/sweeper": "our own sweeper, chosen by `sweep=tune`",
}
del GROUPS["hydra"]  # whose groups stand above
OTHERS = ("benchmark", "cache", "doctor", "evaluate", "export", "info", "predict", "report")


class Key(NamedTuple):
    """One key of a YAML file.

    Attributes:
        path: dotted.
        value: as written; empty for a mapping.
        comment: the text behind the key, or else above it.
    """

    path: str
    value: str
    comment: str


class Setting(NamedTuple):
    """One key of a choice.

    Attributes:
        value: as the choice's file has it; empty where it has none.
        default: the constructor's own, as Python writes it; empty for none.
        meaning: from the constructor's docstring, or else the file's comment, or else the schema's help.
    """

    value: str
    default: str
    meaning: str


def main() -> None:
    """Write the reference."""
    REFERENCE.write_text(reference())


def reference() -> str:
    """Return the whole page, in Markdown."""
    lines = [
        "# Configuration reference",
        "",
        "This page lists every key and every choice. `python docs/reference.py` generates it from",
        "[schema.py](../src/amtml_pl/config/schema.py), [conf/](../conf) and the docstrings.",
        "`python -m amtml_pl.train … --cfg job` prints the composed configuration of a command.",
        "[Configuration and error messages](configuration.md) explains the checks.",
        "",
        "Keys are written as on the command line. A key without a value is not in the choice's YAML file.",
        "Then the constructor's default is used, and `+key=value` sets another value.",
        "",
        "## Root keys",
        "",
        *declared_table("train", KEYS),
    ]
    for group, title in GROUPS.items():
        lines += ["", f"## {group}: {title}", "", *group_section(group)]
    lines += ["", "## The other commands", ""]
    for command in OTHERS:
        file = config_directory() / f"{command}.yaml"
        if file.is_file():
            lines += [f"### `python -m amtml_pl.{command}`", "", cell(header(file)), ""]
            lines += [*declared_table(command, COMMANDS.get(command, {})), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def group_section(group: str) -> list[str]:
    """Yield a group's choices, each with its file's first words, then the keys of each."""
    if group == "teacher":
        return teacher_section()
    files = sorted((config_directory() / group).glob("*.yaml"))
    if group in COMPOSES:
        rows = [f"| `{file.stem}` | {cell(header(file))} | {what_it_sets(file)} |" for file in files]
        return ["| choice | what | sets |", "|---|---|---|", *rows]
    lines = ["| choice | what |", "|---|---|"]
    lines += [f"| `{file.stem}` | {cell(header(file))} |" for file in files]
    for constructors, alike in alike_choices(group, files).items():
        lines += ["", *family_section(constructors, alike)]
    return lines


def teacher_section() -> list[str]:
    """Yield the keys of a teacher besides its network, which is a student's."""
    shared = config_directory() / "teacher" / "source" / "trained.yaml"
    given = values_of(shared)
    rows = ((path, each) for path, each in leaves(TEACHER) if path in given)
    return [
        "Every choice of `student` is also a choice of `teacher`.",
        "`teacher.NAME.network` has the same keys as `student.network`, e.g. `teacher.NAME.network.depth`.",
        "",
        f"The other keys of every teacher. {header(shared)}",
        "",
        *table_of((f"teacher.NAME.{path}", given[path], each) for path, each in rows),
    ]


def what_it_sets(file: Path) -> str:
    """Return the effects of a choice: what it builds on, other choices, and keys."""
    content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    parts = []
    for entry in content.get("defaults", []):
        if isinstance(entry, str):
            parts += [f"what `{entry.strip('/')}` sets"] if entry != "_self_" else []
        for group, choice in entry.items() if isinstance(entry, Mapping) else ():
            name = group.removeprefix("override ").strip("/")
            parts.append(
                code(f"{name}={'[' + ','.join(choice) + ']' if isinstance(choice, list) else choice}")
            )
    for key in keys(file):
        if key.value and key.path.split(".")[0] != "defaults":
            parts.append(code(f"{key.path}={key.value}") + (f" ({cell(key.comment)})" if key.comment else ""))
    return ", ".join(parts)


Constructors = tuple[tuple[str, str], ...]  # the path and the target of each


def alike_choices(group: str, files: Sequence[Path]) -> dict[Constructors, dict[str, dict[str, Key]]]:
    """Return the choices that call the same constructors in the same places, with their keys."""
    found: dict[Constructors, dict[str, dict[str, Key]]] = {}
    for file in files:
        own = {key.path: key for key in keys_of_choice(file, group)}
        ends = "._target_"
        constructors = tuple(
            (path.removesuffix(ends), own[path].value) for path in own if path.endswith(ends)
        )
        found.setdefault(constructors, {})[file.stem] = own
    return found


def keys_of_choice(file: Path, group: str) -> list[Key]:
    """Return the keys of a choice and of those of its group that it builds on."""
    content: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    found: dict[str, Key] = {}
    for entry in content.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            found |= {key.path: key for key in keys_of_choice(file.with_stem(entry), group)}
    for key in keys(file):
        if key.path.split(".")[0] == "defaults":
            continue
        package = package_of(file, group)
        path = f"{package}.{key.path}" if package else key.path
        found[path] = Key(path, key.value, key.comment or found.get(path, key).comment)
    return [*found.values()]


def package_of(file: Path, group: str) -> str:
    """Where the keys of a file go; empty for the root."""
    said = re.match(r"# @package (\S+)", file.read_text())
    package = said[1] if said else group.replace("/", ".")
    return "" if package == "_global_" else package


def family_section(constructors: Constructors, alike: Mapping[str, Mapping[str, Key]]) -> list[str]:
    """Yield the keys of choices with the same constructors; a line for each where values differ."""
    of_choice = {name: settings(constructors, own) for name, own in alike.items()}
    lines = [f"**{', '.join(f'`{name}`' for name in alike)}**", ""]
    lines += [f"- `{path}`: `{target}`{short_description(target)}" for path, target in constructors]
    rows, different = [], []
    for path in dict.fromkeys(path for own in of_choice.values() for path in own):
        each = {name: own.get(path, Setting("", "", "")) for name, own in of_choice.items()}
        values = {setting.value for setting in each.values()}
        meanings = dict.fromkeys(setting.meaning for setting in each.values() if setting.meaning)
        told = [f"`{name}`: {setting.meaning}" for name, setting in each.items() if setting.meaning]
        what = "; ".join(told if len(meanings) > 1 else meanings)
        if len(values) > 1:
            different.append(path)
        value = code(*values) if len(values) == 1 else "*below*"
        default = next(filter(None, (setting.default for setting in each.values())), "")
        rows.append(f"| `{path}` | {value} | {code(default)} | {cell(what)} |")
    if rows:
        lines += ["", "| key | value | constructor's default | what |", "|---|---|---|---|", *rows]
    if different:
        lines += ["", f"| choice | {' | '.join(f'`{path}`' for path in different)} |"]
        lines += ["|" + "---|" * (len(different) + 1)]
        for name, own in of_choice.items():
            cells = [(path in own and code(own[path].value)) or "not set" for path in different]
            lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return lines


def short_description(target: str) -> str:
    """Return the first line of our own constructor's docstring, behind a colon."""
    if not target.startswith("amtml_pl."):
        return ""
    return f": {cell(parse(inspect.getdoc(get_object(target)) or '').short_description or '')}"


def settings(constructors: Constructors, own: Mapping[str, Key]) -> dict[str, Setting]:
    """Return the keys of a choice, then the arguments of our constructors that it leaves out."""
    taken = {
        path: each for prefix, target in constructors for path, each in arguments(prefix, target).items()
    }
    found = {}
    for path, key in own.items():
        argument = taken.pop(path, Setting("", "", ""))
        meaning = argument.meaning or key.comment or (declared_help(path) if key.value else "")
        setting = argument._replace(value=key.value, meaning=meaning)
        if (setting.value or setting.meaning) and not path.split(".")[-1].startswith("_"):
            found[path] = setting
    return found | taken


def declared_help(path: str) -> str:
    """Return the schema's help for a dotted key; empty if the schema does not declare it."""
    found, declared = "", KEYS
    for name in path.split("."):
        each = declared.get(name, declared.get("*"))
        if each is None:
            return ""
        found, declared = each.help, each.keys
    return found


def arguments(prefix: str, target: str) -> dict[str, Setting]:
    """Return the arguments of our own constructor, from its docstring."""
    if not target.startswith("amtml_pl."):
        return {}
    built: Any = get_object(target)
    # What a loop inherits is not typed: the run gives it its student, terms and teachers.
    own = [built] if prefix == "loop" else getattr(built, "__mro__", (built,))
    own = [each for each in own if each.__module__.startswith("amtml_pl.")]
    described = [each for documented in reversed(own) for each in parse(documented.__doc__ or "").params]
    meaning = {each.arg_name: each.description or "" for each in described}
    return {
        f"{prefix}.{name}": Setting(
            "", "" if parameter.default is parameter.empty else repr(parameter.default), meaning[name]
        )
        for name, parameter in inspect.signature(built).parameters.items()
        if name in meaning and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }


def values_of(file: Path) -> dict[str, str]:
    """Return the values of a YAML file by their keys, as they are written; of nodes none."""
    return {key.path: key.value for key in keys(file) if key.value}


def declared_table(command: str, declared: Mapping[str, Declared]) -> list[str]:
    """Return the table of a command's keys that its file gives values to, as the schema declares them."""
    given = values_of(config_directory() / f"{command}.yaml")
    named_by_users = {name for name, each in declared.items() if "*" in each.keys}
    paths = given.keys() - {"loss"} | named_by_users
    return table_of((path, given.get(path, ""), each) for path, each in leaves(declared) if path in paths)


def table_of(rows: Iterable[tuple[str, str, Declared]]) -> list[str]:
    """Return a table of declared keys with their defaults."""
    head = ["| key | default | may be | what |", "|---|---|---|---|"]
    lines = [
        f"| `{path}` | {code(value)} | {cell(each.expected)} | {cell(each.help)} |"
        for path, value, each in rows
    ]
    return [*head, *lines] if lines else []


def keys(file: Path) -> Iterator[Key]:
    """Return the keys of a YAML file in order, as written; those of a mapping after it."""
    text = file.read_text()
    root = yaml.compose(text)
    if root is not None:
        yield from keys_below(root, "", text)


def keys_below(node: yaml.Node, path: str, text: str) -> Iterator[Key]:
    """Yield the keys of a node; a list's mappings have their numbers for keys."""
    if isinstance(node, yaml.MappingNode):
        children = [(key.value, key, value) for key, value in node.value]
    else:
        children = [(str(number), value, value) for number, value in enumerate(node.value)]
    for name, key, value in children:
        own = f"{path}.{name}" if path else name
        parent = is_parent(value)
        in_line = (
            value.flow_style if isinstance(value, yaml.CollectionNode) else value.style not in ("|", ">")
        )
        comment = comment_of(key, value if in_line else key, text.splitlines()) if key is not value else ""
        yield Key(own, "" if parent else as_written(value, text), comment)
        if parent:
            yield from keys_below(value, own, text)


def is_parent(node: yaml.Node) -> bool:
    """Whether a node has keys of its own, or is a list of such nodes."""
    if isinstance(node, yaml.SequenceNode):
        return any(isinstance(child, yaml.MappingNode) for child in node.value)
    return isinstance(node, yaml.MappingNode) and bool(node.value)


def as_written(node: yaml.Node, text: str) -> str:
    """Return a value as the file has it; a list of several lines in one."""
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return f"[{', '.join(as_written(child, text) for child in node.value)}]"
    return " ".join(text[node.start_mark.index : node.end_mark.index].split())


def comment_of(key: yaml.Node, ends: yaml.Node, lines: Sequence[str]) -> str:
    """Return the comment behind a key, or else in the lines above it."""
    mark = ends.end_mark
    if behind := re.match(r":?\s+# (.*)", lines[mark.line][mark.column :]):
        return behind[1]
    first = key.start_mark.line
    while first > 0 and lines[first - 1].lstrip().startswith("# "):
        first -= 1
    above = lines[first : key.start_mark.line] if first > 0 else []
    return " ".join(line.strip().removeprefix("# ") for line in above)


def code(value: str) -> str:
    """Return a value as typed; an empty text for None."""
    return f"`{value.replace('|', chr(92) + '|')}`" if value else ""


def cell(text: str) -> str:
    """Text in one line of a table, where only what is code may look like a tag."""
    parts = " ".join(text.split()).replace("|", "\\|").replace("``", "`").split("`")
    return "`".join(part if place % 2 else part.replace("<", "&lt;") for place, part in enumerate(parts))


if __name__ == "__main__":
    main()
