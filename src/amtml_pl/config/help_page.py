"""Write the pages of ``--help``: what people look for first, then every key."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from amtml_pl.config.command_keys import COMMANDS
from amtml_pl.config.data_keys import DATA
from amtml_pl.config.headers import header, usage
from amtml_pl.config.key import Key, leaves
from amtml_pl.config.override_errors import options_of
from amtml_pl.config.paths import config_directory
from amtml_pl.config.schema import COMPOSES, KEYS
from amtml_pl.config.value_origin import folders_of_files

WIDTH, NAMES = 100, 24  # columns of a page, and of the names of keys
# Every root key has one place here; a key below a root key has one if many people look for it.
SECTIONS: Mapping[str, Sequence[str]] = {
    "Where to start": ("experiment", "method"),
    "The data": ("dataset", "augment", "data", "data.batch_size", "data.views", "data.val_size"),
    "The teachers": ("teacher", "teacher_source", "teacher_recipe", "teacher_seeds", "cache"),
    "The student": ("student", "init_from"),
    "The method": (
        "loss", "coef", "weighting", "loop", "temperature", "mixture", "hint_pool", "expected_defects",
    ),
    "The training": ("seed", "optimizer", "scheduler", "trainer", "trainer.max_epochs", "extend"),
    "Speed": (
        "execution", "trainer.accelerator", "trainer.devices", "trainer.precision", "data.device",
    ),
    "Several runs (-m)": ("sweep", "launcher"),
    "Where things are": ("paths", "paths.data", "paths.outputs", "paths.cache", "paths.teachers", "role"),
    "A run's life": (
        "prepare", "doctor", "resume", "checkpoint_minutes", "force", "logger", "callbacks", "debug",
        "traceback",
    ),
}  # fmt: skip
OF_A_RUN = ("benchmark", "cache", "doctor", "info")  # these commands have every key of a run, too
PAGES = {
    "benchmark": "measurements/speed",
    "info": "configuration",
    "predict": "export",
    "train": "reference",
}


def help_page(command: str) -> str:
    """Return the page of a command, above its defaults, as a template of Hydra's."""
    file = config_directory() / f"{command if command in COMMANDS else 'train'}.yaml"
    lines = [*wrapped("", header(file), ""), "", *wrapped("  ", usage(file), "      "), ""]
    lines += run_keys() if file.stem == "train" else own_keys(file.stem)
    lines += ["", f"Details: docs/{PAGES.get(file.stem, file.stem)}.md"]
    return "\n".join(lines).replace("$", "$$")


def own_keys(command: str) -> Iterator[str]:
    """Yield the keys of a command other than ``train``."""
    if declared := [*leaves(COMMANDS[command])]:
        yield "Keys (KEY=VALUE)"
        yield from table(declared)
    if command in OF_A_RUN:
        yield from [""] if declared else []
        yield "Every key of a run: python -m amtml_pl.train --help"


def run_keys() -> Iterator[str]:
    """Yield the keys of a run by section, the choices, then all other keys."""
    declared = {**dict(leaves({**COMPOSES, **KEYS})), "augment": DATA["augment"]}
    for title, paths in SECTIONS.items():
        yield title
        yield from table((path, declared[path]) for path in paths)
        yield ""
    shown = [path for paths in SECTIONS.values() for path in paths]
    yield "Choices (GROUP=CHOICE; python -m amtml_pl.info methods describes those of a group)"
    for group in shown:
        if found := choices(group):
            yield from wrapped(f"  {group:{NAMES}}", ", ".join(found), " " * (NAMES + 2))
    yield from ("", "More keys (KEY=VALUE; a network, a loss and so on add those of their constructors)")
    yield from table((path, each) for path, each in leaves(KEYS) if path not in shown)


def choices(group: str) -> list[str]:
    """Return the choices of a group, also of the user's files; none for a key."""
    found = options_of(group, folders_of_files())
    if group == "teacher":
        students = choices("student")
        found = ["every student", "timm/MODEL", *(name for name in found if name not in students)]
    return found


def table(keys: Iterable[tuple[str, Key]]) -> Iterator[str]:
    """Yield keys with a line of help each, or two where it is long."""
    for path, each in keys:
        name = path.replace("coef.*", "coef.TERM").replace(".*", ".NAME")
        yield from wrapped(f"  {name:{NAMES - 1}} ", each.help, " " * (NAMES + 2))


def wrapped(first: str, text: str, others: str) -> list[str]:
    """Return a text in lines of at most `WIDTH` columns, with their indentation."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=others, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip
