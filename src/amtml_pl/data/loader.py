"""Whole batches, each made from one tensor of indices, in an order that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from amtml_pl.data.augment import Augmentation
from amtml_pl.data.mixup import Mixup
from amtml_pl.data.splits import SplitRows
from amtml_pl.types import Batch, TeacherOutputs


class Order(Sampler[Int64[Tensor, " _"]]):
    """The batches of an epoch from one of them on; Lightning counts those before it too."""

    def __init__(self, batches: Sequence[Int64[Tensor, " _"]], first: int) -> None:
        self.batches, self.first = batches, first

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Int64[Tensor, " _"]]:
        yield from self.batches[self.first :]


class ResumableLoader(DataLoader[Batch]):
    """Tells Lightning, by these two methods, that an epoch can be gone on with; the module sees to it."""

    def state_dict(self) -> dict[str, int]:
        """Nothing: `PackedDataModule.state_dict` says where."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Nothing."""


@dataclass(eq=False)
class BatchReader(Dataset[Batch]):
    """Makes a whole batch from one tensor of indices, with the teachers' outputs where a cache holds them."""

    split: SplitRows
    augment: Augmentation
    view: int
    read_teachers: Callable[[Batch], TeacherOutputs] | None = None
    blend: Mixup | None = None

    def __getitem__(self, index: Int64[Tensor, " B"]) -> Batch:
        rows = self.split.rows[index]
        images = self.augment(self.split.stored.images[rows], index, self.view)
        batch = Batch(images, self.split.stored.labels[rows], index, self.view, self.split.name)
        if self.blend is not None:
            batch = self.blend(batch)
        return batch if self.read_teachers is None else replace(batch, teachers=self.read_teachers(batch))
