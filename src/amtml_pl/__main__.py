"""List the commands, or run one: ``python -m amtml_pl``."""

from __future__ import annotations

import ast
import difflib
import importlib
import shlex
import sys
from pathlib import Path

from amtml_pl.config.paths import config_directory

PACKAGE = Path(__file__).parent
COMMANDS = ("train", "report", "evaluate", "predict", "export", "cache", "doctor", "benchmark", "info")
FIRST_SESSION = (
    "python -m amtml_pl.train experiment=digits_amtml",
    "python -m amtml_pl.train experiment=digits method=avg",
    "python -m amtml_pl.report baseline=avg",
)


def main() -> None:
    """Run the typed command, or print all; exit with status 2 for an unknown one."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(overview())  # noqa: T201 - before the console's import
    elif name in COMMANDS:
        sys.argv = [name, *words]
        importlib.import_module(f"amtml_pl.{name}").main()
    elif name == "completion":
        complete_line(words)
    else:
        refuse(name, words)


def overview() -> str:
    """Return the commands with a line each, a first session, and where the pages are."""
    lines = [f"  {name:10} {first_line(name)}" for name in COMMANDS]
    pages = config_directory().parent / "docs" / "index.md"
    return "\n".join([
        ast.get_docstring(ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))) or "",
        "", "Commands (python -m amtml_pl.COMMAND, or amtml COMMAND after an installation):", *lines,
        "", "A first session of about two minutes:", *(f"  {command}" for command in FIRST_SESSION),
        "", "Options of a command: python -m amtml_pl.COMMAND --help",
        "Choices of teachers, students, methods, data sets: python -m amtml_pl.info teachers",
        'Completion in bash: eval "$(amtml completion bash)"',
        f"Documentation: {pages if pages.is_file() else 'README.md and docs/ of the repository'}",
    ])  # fmt: skip


def first_line(name: str) -> str:
    """Return what a command does, from its module's docstring, without an import of the module."""
    text = (PACKAGE / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0].partition(": ``")[0]


def complete_line(words: list[str]) -> None:
    """Print what bash needs to complete a command line."""
    from amtml_pl.config.completion import complete
    from amtml_pl.config.reporting import reporting

    with reporting(lambda: "amtml completion bash", show_traceback=False):
        complete(words, COMMANDS)


def refuse(name: str, words: list[str]) -> None:
    """Report an unknown command, with the most similar one; exit with status 2."""
    from amtml_pl.config.reporting import report_mistake
    from amtml_pl.config.rules import suggestion
    from amtml_pl.errors import UserError

    close = difflib.get_close_matches(name, COMMANDS, n=1)
    fix = shlex.join(["python", "-m", "amtml_pl", *close, *(words if close else ())])
    report_mistake(
        UserError(f"The command {name!r} is unknown{suggestion(name, dict.fromkeys(COMMANDS))}", fix=fix)
    )


if __name__ == "__main__":
    main()
