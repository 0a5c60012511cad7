"""Buffer of samples that the student gets wrong, with all their data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from amtml_pl.types import Batch, TeacherOutputs


class HardSamples:
    """Buffer of samples: filled first, then random ones are replaced by wrong ones."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: Batch | None = None

    @property
    def is_full(self) -> bool:
        """Return True if the buffer is full."""
        return self.kept is not None and len(self.kept) == self.size

    def keep(self, batch: Batch, wrong: Bool[Tensor, " B"]) -> None:
        """Store samples of a batch: any while there is room, then the wrong ones."""
        batch = batch.map(Tensor.detach)
        if self.kept is None:
            self.kept = rows(batch, torch.arange(min(len(batch), self.size), device=wrong.device))
        elif not self.is_full:
            room = torch.arange(min(len(batch), self.size - len(self.kept)), device=wrong.device)
            self.kept = joined(self.kept, rows(batch, room))
        else:
            new = wrong.nonzero()[:, 0][: self.size]
            places = torch.randperm(self.size)[: len(new)].to(new.device)
            order = torch.arange(self.size, device=new.device)
            order[places] = self.size + torch.arange(len(new), device=new.device)
            self.kept = rows(joined(self.kept, rows(batch, new)), order)

    def some(self, count: int) -> Batch:
        """Return up to ``count`` random stored samples of a full buffer."""
        kept = cast("Batch", self.kept)
        return rows(kept, torch.randperm(len(kept))[:count].to(kept.labels.device))

    def state(self) -> dict[str, Any] | None:
        """Return the buffer's tensors and names for a checkpoint."""
        if self.kept is None or self.kept.teachers is None:
            return None
        samples = {name: getattr(self.kept, name) for name in ("images", "labels", "index")}
        return {**samples, **vars(self.kept.teachers), "names": list(self.kept.teachers.names)}

    def load(self, state: dict[str, Any] | None) -> None:
        """Restore the buffer that `state` gave."""
        self.kept = None
        if state is not None:
            outputs = TeacherOutputs(tuple(state["names"]), state["logits"], state["hints"])
            samples = {name: state[name] for name in ("images", "labels", "index")}
            self.kept = Batch(**samples, view=0, split="train", teachers=outputs)


def rows(batch: Batch, which: Int64[Tensor, " _"]) -> Batch:
    """Return some samples of a batch, which may be of different views."""
    return replace(batch, mixed=None).map(lambda tensor: tensor[which])


def joined(first: Batch, second: Batch) -> Batch:
    """Return the samples of two batches as one."""
    tensors: list[Tensor] = []
    second.map(lambda tensor: tensors.append(tensor) or tensor)  # type: ignore[func-returns-value]
    rest = iter(tensors)  # both batches have the same fields, and `map` visits them in one order
    return first.map(lambda tensor: torch.cat([tensor, next(rest)]))
