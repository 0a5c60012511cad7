"""Runs without a validation split: which there are, and what they cannot do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amtml_pl.config.build import ObjectSpec
from amtml_pl.data.source import DatasetSource
from amtml_pl.errors import UserError
from amtml_pl.training.selected_teacher import SelectedTeacher, names
from amtml_pl.training.settings import Settings
from amtml_pl.weighting.scheme import Weighting

SPLIT = "data.val_size=0.1"


def validates(settings: Settings, source: DatasetSource) -> bool:
    """Return True if a run has a validation split."""
    return settings.data.val_size != 0 or "val" in source.splits


def refuse_without_validation(teachers: Sequence[SelectedTeacher], weighting: Weighting | None) -> None:
    """Raise a UserError for parts of a run that need a validation split."""
    for teacher in teachers:
        if teacher.options.head == "linear":
            raise needs_validation(
                f"teacher.{teacher.name}.head=linear selects the strength of its regularisation",
                f"teacher.{teacher.name}.head=null with a network that has a classifier",
            )
    if weighting is not None and weighting.needs_held_out:
        raise needs_validation(
            f"The weighting {type(weighting).__name__} learns weights of the teachers",
            weighting.without_held_out,
        )
    if weighting is not None and weighting.needs_accuracy:
        raise needs_validation(
            f"weighting.teacher=best selects one of {len(teachers)} teachers",
            f"weighting.teacher={names(teachers)[0]}",
        )


def refuse_unmeasured(callbacks: Mapping[str, ObjectSpec]) -> None:
    """Raise a UserError for a callback that reads a metric of a missing validation split."""
    for name, part in callbacks.items():
        if str(monitored := part.plain().get("monitor")).startswith("val/"):
            raise needs_validation(
                f"callbacks.{name} reads {monitored}", f"callbacks.{name}.monitor=train/acc"
            )


def needs_validation(reader: str, other: str) -> UserError:
    """Return the error of a part that reads the validation split."""
    what = f"{reader} on the validation split, but the run has none (got data.val_size=0, expected above 0)."
    return UserError(what, fix=f"{other}, or {SPLIT}")
