"""Make whole batches from tensors of indices, in an order that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from amtml_pl.data.augment import Augmentation, Images
from amtml_pl.data.mixup import Mixup
from amtml_pl.data.splits import SplitRows
from amtml_pl.types import Batch, TeacherOutputs


class Order(Sampler[Int64[Tensor, " _"]]):
    """A sampler that starts within an epoch; its length counts all batches."""

    def __init__(self, batches: Sequence[Int64[Tensor, " _"]], first: int) -> None:
        self.batches, self.first = batches, first

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Int64[Tensor, " _"]]:
        yield from self.batches[self.first :]


class ResumableLoader(DataLoader[Batch]):
    """A loader that Lightning can resume within an epoch, as it has these two methods."""

    def state_dict(self) -> dict[str, int]:
        """Return an empty state, as `PackedDataModule.state_dict` holds the position."""
        return {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Do nothing, as `PackedDataModule` restores the position."""


@dataclass(eq=False)
class BatchReader(Dataset[Batch]):
    """A data set whose items are whole batches, with cached teacher outputs if available.

    Everything but the pixels is on the CPU, from where the trainer moves it without waiting.
    """

    split: SplitRows
    images: Images  # of the packed split, on the device that augments them
    augment: Augmentation
    view: int  # from 1 in training; 0 leaves the images unaugmented
    read_teachers: Callable[[Batch], TeacherOutputs] | None = None  # None leaves them out
    blend: Mixup | None = None  # mixup

    def __getitem__(self, index: Int64[Tensor, " B"]) -> Batch:
        rows = self.split.rows[index]
        stored = self.images[rows.to(self.images.device, non_blocking=True)]
        images = self.augment(stored, index, self.view)
        labels = self.split.stored.labels[rows]
        batch = Batch(images, labels=labels, index=index, view=self.view, split=self.split.name)
        if self.blend is not None:
            batch = self.blend(batch)
        return batch if self.read_teachers is None else replace(batch, teachers=self.read_teachers(batch))
