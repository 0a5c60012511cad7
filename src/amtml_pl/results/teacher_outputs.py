"""What the teachers of a finished run gave for its images, read from the cache; no teacher is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.results.teachers import RecordedTeacher
from amtml_pl.teachers.cache.store import TensorStore
from amtml_pl.types import TeacherOutputs


@dataclass(frozen=True)
class RecordedOutputs:
    """The cached outputs of a run's teachers.

    Attributes:
        teachers: the M teachers, in the order of their outputs.
        cache: the folder of the cached outputs for the run's data set.
        stores: the stores of the training images that the run's record names, relative to it.
    """

    teachers: tuple[RecordedTeacher, ...]
    cache: Path
    stores: Sequence[str]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the teachers."""
        return tuple(teacher.name for teacher in self.teachers)

    def of_training_images(self, view: int) -> TeacherOutputs:
        """Logits and hints for a view of the training images.

        Raises:
            UserError: if the cache does not hold all of it.
        """
        found: dict[str, Tensor] = {}
        for name in self.stores:
            store = self.store(name)
            if not store.is_complete(view):
                raise self.absent(f"view {view} of {name}, which has the views {store.views()}")
            store.verify(view)
            found[f"{store.teacher}/{store.tensor}"] = store.open(view).whole()
        if lacking := [name for name in self.names if f"{name}/logits" not in found]:
            raise self.absent(f"the logits of {', '.join(lacking)}")
        logits = torch.stack([found.pop(f"{name}/logits") for name in self.names], dim=1)
        return TeacherOutputs(self.names, logits, found)

    def of_other_images(self, digest: str, rows: SplitRows) -> TeacherOutputs:
        """Logits for a split that is not augmented.

        Args:
            digest: of the packed data.
            rows: the split.

        Raises:
            UserError: if the cache does not hold those of every teacher.
        """
        logits = {teacher.name: teacher.cached_logits(digest, rows) for teacher in self.teachers}
        if lacking := [name for name, found in logits.items() if found is None]:
            raise self.absent(f"the {rows.name} logits of {', '.join(lacking)}")
        return TeacherOutputs(self.names, torch.stack([t for t in logits.values() if t is not None], dim=1))

    def store(self, name: str) -> TensorStore:
        """A store that the record names.

        Raises:
            UserError: if it is not below the cache, or damaged.
        """
        folder = self.cache / name
        try:
            here = folder.resolve().is_relative_to(self.cache.resolve()) and folder.is_dir()
        except (OSError, ValueError):  # a name that no folder can have
            here = False
        if not here:
            raise self.absent(f"the store {name:.200}")
        return TensorStore.from_folder(folder)

    def absent(self, what: str) -> UserError:
        """What to say of outputs that are not there."""
        return UserError(
            f"The cache in {self.cache.parent} does not hold {what}.",
            fix="load_run(..., cache=FOLDER) where it lies now, or "
            "python -m amtml_pl.cache action=build with the overrides of the run",
        )
