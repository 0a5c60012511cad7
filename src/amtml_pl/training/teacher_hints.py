"""The hints of a run's teachers that its loss terms read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from amtml_pl.errors import UserError
from amtml_pl.losses.term import LossTerm
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.types import OfferedFeatures


def with_hints(
    teachers: Sequence[SelectedTeacher],
    terms: Mapping[str, LossTerm],
    offered: Mapping[str, OfferedFeatures],
) -> tuple[SelectedTeacher, ...]:
    """Return the teachers with the hints that terms read; unknown teachers are a UserError."""
    wanted: dict[str, list[str]] = {teacher.name: [] for teacher in teachers}
    for name in dict.fromkeys(hint for term in terms.values() for hint in term.hints(offered)):
        teacher, _, hint = name.partition("/")
        if teacher not in wanted:
            what = f"The teacher of hint {name!r} is not selected (expected one of {list(wanted)})."
            raise UserError(
                what, fix=f"name a selected teacher, or select {teacher}: 'teacher=[{teacher},...]'"
            )
        wanted[teacher].append(hint)
    return tuple(replace(teacher, hints=tuple(wanted[teacher.name])) for teacher in teachers)
