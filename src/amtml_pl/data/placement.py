"""Memory that batches are made in: the CPU's, or an accelerator's."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal, TypeAlias

import torch

from amtml_pl.data.augment import Images
from amtml_pl.data.splits import SplitRows
from amtml_pl.errors import UserError
from amtml_pl.system.device_memory import fits_on_device, free_memory
from amtml_pl.types import Split

log = logging.getLogger(__name__)

DataDevice: TypeAlias = Literal["auto", "cpu", "device"]


class ImagePlacement:
    """The stored images of a run, moved to an accelerator once if they belong there.

    Args:
        splits: all splits of the run; those that are parts of one packed split share its images.
        wanted: ``cpu`` leaves the images where they are; ``device`` moves them or raises a UserError;
            ``auto`` moves them if they take at most half of the accelerator's free memory.
        num_workers: processes that read the images; they cannot share an accelerator's memory.
    """

    def __init__(self, splits: Iterable[SplitRows], wanted: DataDevice, num_workers: int) -> None:
        self.stored = {id(split.stored): split.stored for split in splits}
        self.wanted, self.num_workers = wanted, num_workers
        self.device: torch.device | None = None
        self.moved: dict[int, Images] = {}

    def to(self, device: torch.device) -> None:
        """Decide where the images stay during a run on this device, once per device."""
        if device == self.device:
            return
        self.device, self.moved = device, {}
        obstacle = None if self.wanted == "cpu" else self.obstacle(device)
        if self.wanted == "device" and obstacle:
            raise UserError(f"data.device=device is impossible: {obstacle}.", fix="data.device=auto")
        if obstacle and free_memory(device) is not None:
            log.warning("The images stay in the CPU's memory (data.device=auto): %s.", obstacle)
        if self.wanted != "cpu" and not obstacle:
            self.moved = {key: stored.images.to(device) for key, stored in self.stored.items()}

    def obstacle(self, device: torch.device) -> str | None:
        """Return why the images cannot stay on a device, as a sentence without its stop."""
        size, free = sum(stored.images.nbytes for stored in self.stored.values()), free_memory(device)
        if free is None:
            return f"the run trains on the device {device.type}, whose free memory is unknown (expected CUDA)"
        if self.num_workers:
            return f"data.num_workers={self.num_workers} reads them in other processes (expected 0)"
        if not fits_on_device(size, device):
            return f"they need {size / 1e9:.2g} GB, more than half of the {free / 1e9:.2g} GB that are free"
        return None

    def images_of(self, stored: Split) -> Images:
        """Return the images of a packed split, in the memory that batches are made in."""
        return self.moved.get(id(stored), stored.images)
