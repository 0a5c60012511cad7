"""The teacher source of a cached run, which reads and never computes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.system.device_memory import fits_on_device
from amtml_pl.teachers.cache.storage import bytes_per_row
from amtml_pl.teachers.cache.teacher_stores import TeacherStores, all_stores
from amtml_pl.teachers.cache.view import StoredView
from amtml_pl.types import Batch, TeacherOutputs

Placement = Literal["auto", "mapped", "resident"]


class CachedTeachers:
    """A teacher source that returns the stored outputs for the same pixels.

    Args:
        names: the M teachers in order.
        teachers: their stores; empty while they are not known yet, when nothing can be read.
        views: all views that the run will use.
        placement: ``mapped`` reads each batch from disk, in the loader's processes if it has some;
            ``resident`` moves each view to the device once; ``auto`` does that on CUDA if all views take at
            most half of the free memory.
    """

    def __init__(
        self,
        names: Sequence[str],
        teachers: Sequence[TeacherStores] = (),
        views: Sequence[int] = (),
        placement: Placement = "auto",
    ) -> None:
        self.names: tuple[str, ...] = tuple(names)
        self.placement = placement
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
        """Return True if the views are kept on the device.

        Decided once per device: views that have moved there are no longer free memory, and a forked
        loader's process, which inherits the decision, cannot use CUDA.
        """
        if self.decided is None:
            fits = self.placement == "auto" and self.fits_on_device()
            self.decided = self.placement == "resident" or fits
        return self.decided

    def fits_on_device(self) -> bool:
        """Return True if all decoded views fit into half of CUDA's free memory."""
        size = 0
        for store in all_stores(self.teachers):
            decoded = "float32" if store.storage == "int8" else store.storage
            size += len(self.views) * store.rows * bytes_per_row(store.shape or (), decoded)
        return fits_on_device(size, self.device)

    def __call__(self, batch: Batch) -> TeacherOutputs:
        """Return the teachers' outputs for the images of the batch."""
        return self.read(batch) if batch.teachers is None else batch.teachers

    def read(self, batch: Batch) -> TeacherOutputs:
        """Return a training batch's stored rows; a UserError if its view is not built.

        They are on the device of the batch's index.
        """
        if batch.split != "train":
            raise RuntimeError(f"The cache has only the train split (got a batch of {batch.split!r}).")
        device = batch.index.device
        if self.is_resident:
            if batch.view not in self.resident:
                views = self.stored(batch.view)
                self.resident[batch.view] = {name: view.whole().to(device) for name, view in views.items()}
            found = {name: rows[batch.index] for name, rows in self.resident[batch.view].items()}
        else:
            index, views = batch.index.cpu(), self.stored(batch.view)
            found = {name: view.rows(index).to(device) for name, view in views.items()}
        logits = torch.stack([found[f"{name}/logits"] for name in self.names], dim=1)
        hints = {name: rows for name, rows in found.items() if not name.endswith("/logits")}
        return TeacherOutputs(self.names, logits, hints)

    def stored(self, view: int) -> dict[str, StoredView]:
        """Return every store's rows of a view; only the latest view stays open."""
        if self.opened is None or self.opened[0] != view:
            stores = all_stores(self.teachers)
            self.opened = view, {f"{store.teacher}/{store.tensor}": store.open(view) for store in stores}
        return self.opened[1]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a loader's process, without mapped files and loading functions."""
        stores = tuple(replace(teacher, load=unavailable, facts=unavailable) for teacher in self.teachers)
        return {**self.__dict__, "teachers": stores, "opened": None, "resident": {}}


def unavailable(*_: object) -> Any:
    """Raise, in place of a loading function in a loader's process."""
    raise RuntimeError("A DataLoader worker process cannot load teachers.")
