"""Read the teachers' outputs of a finished run from the cache; no teacher is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.results.teachers import RecordedTeacher
from amtml_pl.teachers.cache.store import TensorStore
from amtml_pl.types import TeacherOutputs


def training_outputs(
    teachers: Sequence[RecordedTeacher], cache: Path, stores: Sequence[str], view: int
) -> TeacherOutputs:
    """Return logits and hints for a view of the training images.

    Args:
        teachers: M teachers, in the order of their outputs.
        cache: the folder of the cached outputs for the run's data set.
        stores: relative to it, as the run's record names them.
        view: from 1.

    Raises:
        UserError: if the cache does not hold all of it.
    """
    found: dict[str, Float[Tensor, "N ..."]] = {}
    for name in stores:
        store = store_in(cache, name)
        if not store.is_complete(view):
            raise absent(cache, "train", f"view {view} of {name} (existing views: {store.views()})")
        store.verify(view)
        found[f"{store.teacher}/{store.tensor}"] = store.open(view).whole()
    names = tuple(teacher.name for teacher in teachers)
    if lacking := [name for name in names if f"{name}/logits" not in found]:
        raise absent(cache, "train", f"the logits of teacher {', '.join(lacking)}")
    logits = torch.stack([found.pop(f"{name}/logits") for name in names], dim=1)
    return TeacherOutputs(names, logits, found)


def other_outputs(
    teachers: Sequence[RecordedTeacher], cache: Path, digest: str, rows: SplitRows
) -> TeacherOutputs:
    """Return logits for an unaugmented split of the packed data with a digest.

    Raises:
        UserError: if the cache does not hold those of every teacher.
    """
    logits = {teacher.name: teacher.cached_logits(digest, rows) for teacher in teachers}
    if lacking := [name for name, found in logits.items() if found is None]:
        raise absent(cache, rows.name, f"the {rows.name} logits of teacher {', '.join(lacking)}")
    return TeacherOutputs(tuple(logits), torch.stack([t for t in logits.values() if t is not None], dim=1))


def store_in(cache: Path, name: str) -> TensorStore:
    """Return a store that a run's record names.

    Raises:
        UserError: if it is not below the cache, or damaged.
    """
    folder = cache / name
    try:
        here = folder.resolve().is_relative_to(cache.resolve()) and folder.is_dir()
    except (OSError, ValueError):  # a name that no folder can have
        here = False
    if not here:
        raise absent(cache, "train", f"the folder {name:.200}")
    return TensorStore.from_folder(folder)


def absent(cache: Path, split: str, what: str) -> UserError:
    """Return the error for missing outputs of a split."""
    return UserError(
        f"The cache in {cache.parent} lacks {what}.",
        fix="use load_run(RUN, cache=FOLDER) if the cache has moved, or run "
        f"python -m amtml_pl.cache action=build 'splits=[{split}]' with the overrides of the run",
    )
