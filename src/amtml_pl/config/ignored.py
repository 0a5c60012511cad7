"""Find what a command selects in vain, and show it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, open_dict
from rich.markup import escape

from amtml_pl.config.overrides import key_of
from amtml_pl.config.value_origin import content_of, file_of
from amtml_pl.system.console import console


def leave_out_teachers(config: DictConfig, method: str | None) -> list[str]:
    """Remove teachers if the method's file selects none, and return their names.

    They stay if the command selects other loss terms than the file, as these may need them.
    """
    loss, teachers = config.get("loss"), config.get("teacher")
    if not isinstance(loss, DictConfig) or not isinstance(teachers, DictConfig):  # the check reports them
        return []
    file = file_of("method", str(method))
    about: dict[str, Any] = {} if file is None else content_of(file)
    own: tuple[dict[str, Any], ...] = ({"override /teacher": []}, {"override /loss": [*loss]})
    if any(choice not in about.get("defaults", []) for choice in own):
        return []
    ignored = [str(name) for name in teachers]
    with open_dict(config):
        config.teacher = {}
    return ignored


def ignored_coefficients(typed: Sequence[str], terms: Collection[str]) -> Iterator[str]:
    """Yield typed coefficients of terms that are not selected."""
    for word in typed:
        node, _, name = key_of(word).partition(".")
        if node == "coef" and name and name not in terms and not word.startswith("~"):
            why = f"{name} is not selected (selected: {[*terms]})"
            yield f"{word} is ignored, as {why}; add {name} to loss=[...]"


def show_ignored(method: str | None, teachers: Sequence[str], coefficients: Iterator[str]) -> None:
    """Print the ignored teachers of a run and its ignored coefficients."""
    if teachers:
        console.print(f"method={method} has no teachers: {', '.join(teachers)} ignored.", markup=False)
    for problem in coefficients:
        console.print(f"[yellow]warning:[/] {escape(problem)}")
