"""The teacher source of a cached run, which reads and never computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from amtml_pl.teachers.cache.storage import Storage, bytes_per_row
from amtml_pl.teachers.cache.teacher_stores import TeacherStores, all_stores
from amtml_pl.teachers.cache.view import StoredView
from amtml_pl.types import Batch, TeacherOutputs

Place = Literal["auto", "mapped", "resident"]
SHARE_OF_FREE_MEMORY = 0.5


class CachedTeachers:
    """A teacher source that returns the stored outputs for the same pixels.

    Args:
        names: the M teachers in order.
        teachers: their stores; empty while they are not known yet, when nothing can be read.
        views: all views that the run will use.
        device: ``mapped`` reads the rows of each batch from disk, in the loader's processes if it has
            some; ``resident`` moves each view to the device once; ``auto`` does that on CUDA if all views
            take at most half of the free memory.
    """

    def __init__(
        self,
        names: Sequence[str],
        teachers: Sequence[TeacherStores] = (),
        views: Sequence[int] = (),
        device: Place = "auto",
    ) -> None:
        self.names: tuple[str, ...] = tuple(names)
        self.place = device
        self.device = torch.device("cpu")
        self.teachers, self.views = tuple(teachers), tuple(views)
        self.opened: tuple[int, dict[str, StoredView]] | None = None
        self.resident: dict[int, dict[str, Float[Tensor, "N ..."]]] = {}
        self.decided: bool | None = None

    def to(self, device: torch.device | str) -> CachedTeachers:
        """Set the device of the batches, and drop views on another device."""
        if torch.device(device) != self.device:
            self.resident = {}
        self.device = torch.device(device)
        self.decided = None
        return self

    @property
    def is_resident(self) -> bool:
        """Return whether the views are kept on the device.

        Decided once per device: views that have moved there are no longer free memory, and a forked
        loader's process, which inherits the decision, cannot ask CUDA.
        """
        if self.decided is None:
            self.decided = self.place == "resident" or (self.place == "auto" and self.fits_on_device())
        return self.decided

    def fits_on_device(self) -> bool:
        """Return whether all views fit into half of a CUDA device's free memory."""
        if self.device.type != "cuda":
            return False
        stores = all_stores(self.teachers)
        sizes = [store.rows * bytes_per_row(store.shape or (), decoded(store.storage)) for store in stores]
        free, _ = torch.cuda.mem_get_info(self.device)
        return sum(sizes) * len(self.views) <= SHARE_OF_FREE_MEMORY * free

    def __call__(self, batch: Batch) -> TeacherOutputs:
        """Return the teachers' outputs for the images of the batch, on their device."""
        return self.read(batch) if batch.teachers is None else batch.teachers

    def read(self, batch: Batch) -> TeacherOutputs:
        """Return a training batch's stored rows; a UserError if its view is not built."""
        if batch.split != "train":
            raise RuntimeError(
                f"The cache of a run holds its training split; the batch is of {batch.split!r}."
            )
        found = self.on_device(batch) if self.is_resident else self.from_disk(batch)
        logits = torch.stack([found[f"{name}/logits"] for name in self.names], dim=1)
        hints = {
            f"{teacher.name}/{tap}": found[f"{teacher.name}/{tap}"]
            for teacher in self.teachers
            for tap in teacher.hints
        }
        return TeacherOutputs(self.names, logits, hints)

    def from_disk(self, batch: Batch) -> dict[str, Float[Tensor, "B ..."]]:
        """Return a batch's rows of every store, read from the mapped files."""
        index = batch.index.cpu()
        return {
            name: view.rows(index).to(batch.images.device) for name, view in self.stored(batch.view).items()
        }

    def on_device(self, batch: Batch) -> dict[str, Float[Tensor, "B ..."]]:
        """Return a batch's rows of every store, from views kept on the device."""
        if batch.view not in self.resident:
            views = self.stored(batch.view)
            self.resident[batch.view] = {name: v.whole().to(batch.images.device) for name, v in views.items()}
        index: Int64[Tensor, " B"] = batch.index
        return {name: rows[index] for name, rows in self.resident[batch.view].items()}

    def stored(self, view: int) -> dict[str, StoredView]:
        """Return every store's rows of a view; only the latest view stays open."""
        if self.opened is None or self.opened[0] != view:
            stores = {
                f"{teacher.name}/{tensor}": store
                for teacher in self.teachers
                for tensor, store in teacher.stores.items()
            }
            self.opened = view, {name: store.open(view) for name, store in stores.items()}
        return self.opened[1]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a loader's process, without mapped files and loading functions."""
        stores = tuple(replace(teacher, load=unavailable, facts=unavailable) for teacher in self.teachers)
        return {**self.__dict__, "teachers": stores, "opened": None, "resident": {}}


def decoded(storage: Storage) -> Storage:
    """Return the storage type of values after decoding."""
    return "float32" if storage == "int8" else storage


def unavailable(*_: object) -> Any:
    """Raise, in place of a loading function in a loader's process."""
    raise RuntimeError("A loader's process cannot load teachers.")
