"""Lightning's data module: disjoint splits, a replayable order, one view per epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader

from amtml_pl.data.augment import Augmentation
from amtml_pl.data.balanced import balanced_order
from amtml_pl.data.counter_rng import permutation, random_bits
from amtml_pl.data.loader import BatchReader, Order, ResumableLoader
from amtml_pl.data.mixup import Mixup
from amtml_pl.data.packing import PackedDataset
from amtml_pl.data.placement import DataDevice, ImagePlacement
from amtml_pl.data.splits import SplitRows, disjoint_splits
from amtml_pl.errors import UserError
from amtml_pl.types import Batch, SplitName, TeacherOutputs

# Separate the random numbers of order and mixup from others of an equal seed.
_ORDER = 2**32
_MIXUP = 2**32 + 1


@runtime_checkable
class TeacherReader(Protocol):
    """An object that adds cached teacher outputs to the training batches."""

    def provide(self, view: int) -> None:
        """Make a view readable, before the first batch of its epoch is made."""

    def in_loader(self) -> Callable[[Batch], TeacherOutputs] | None:
        """Return the function that reads outputs in the loader; None to read in the step."""


class PackedDataModule(pl.LightningDataModule):
    """Training, validation and test batches of a packed data set.

    The validation split is the packed one where there is one, else a stratified part of the packed training
    split. The splits depend on ``seed`` alone, the order of the batches on (``order_seed``, epoch), the view
    on the epoch, the pixels on (seed of the augmentation, view, index). Nothing depends on the number of
    workers. The sequence of samples does not depend on the number of ranks.

    The trainer must rebuild the loader every epoch and leave its sampler alone
    (``reload_dataloaders_every_n_epochs=1, use_distributed_sampler=False``): a loader that lives longer
    replays epoch 0 after a resume (Lightning#21938).

    Args:
        packed: the images and labels.
        order_seed: seed of the order of the training batches.
        augment: turns stored training images into their views.
        balanced: True to draw every class equally often in an epoch, see `balanced_order`.
        batch_size: training images per optimiser step, over all ranks together.
        eval_batch_size: images per validation or test batch, over all ranks together.
        views: V, the number of views that the epochs use in turn; ``"all"`` means every distinct one, or a
            new one each epoch if there is no limit.
        val_size: validation images, a whole number or a fraction of the packed training split; 0: no
            validation split. Not used if a validation split is packed.
        train_size: training images, stratified, from what validation leaves; None for all. A larger subset
            holds every smaller one.
        clip_train_size: True to take the nearest possible number in place of an impossible ``train_size``.
        classes: positions of the classes whose images each split keeps; None for all. The images keep their
            labels, so that a network has an output for every class of the data.
        seed: seed of the validation split and the training subset.
        num_workers: processes that prepare batches; 0 prepares them between the steps.
        device: where batches are made: ``cpu``; ``device``, on the accelerator that trains, with all images
            in its memory; ``auto``, there if the images take at most half of its free memory.
        mixup: α of `amtml_pl.data.mixup.Mixup`, for training batches; 0 leaves the images alone.
        teachers: adds a cache's outputs to the training batches; None leaves them out.

    Attributes:
        batches_done: number of trained batches of the current epoch, from which the next loader starts. The
            callback `amtml_pl.training.checkpoints.LastCheckpoint` counts them; checkpoints hold them.
        classes, num_classes: the K class names in label order, and K.
        digest: of the packed data.
        sizes: number of images of each split.

    Raises:
        UserError: if a size or a number of views is out of range.
    """

    def __init__(
        self,
        packed: PackedDataset,
        *,
        order_seed: int,
        augment: Augmentation,
        balanced: bool = False,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        views: int | Literal["all"] = "all",
        val_size: int | float = 0.1,
        train_size: int | None = None,
        clip_train_size: bool = False,
        classes: Sequence[int] | None = None,
        seed: int = 0,
        num_workers: int = 0,
        device: DataDevice = "auto",
        mixup: float = 0.0,
        teachers: TeacherReader | None = None,
    ) -> None:
        super().__init__()
        for name, value, smallest in (
            ("batch_size", batch_size, 1), ("eval_batch_size", eval_batch_size, 1),
            ("num_workers", num_workers, 0), ("mixup", mixup, 0), ("val_size", val_size, 0),
        ):  # fmt: skip
            if not smallest <= value < math.inf:
                raise UserError(f"data.{name}={value} is out of range (expected {smallest} or more).")
        distinct = augment.distinct_views
        if views != "all" and not 1 <= views <= (distinct or math.inf):
            most = "or more" if distinct is None else f"to {distinct}, the different views of data.augment"
            raise UserError(f"data.views={views} is out of range (expected 1 {most}).", fix="data.views=all")
        self.packed, self.digest = packed, packed.digest
        self.classes, self.num_classes = packed.classes, len(packed.classes)
        self.order_seed = order_seed
        self.augment = augment
        self.balanced = balanced
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.views = distinct if views == "all" else views  # None: a new view in every epoch
        self.num_workers = num_workers
        self.mixup = mixup
        self.teachers = teachers
        self.batches_done = 0
        self._splits = disjoint_splits(
            packed, val_size, train_size, seed, classes, clip_train_size=clip_train_size
        )
        self.sizes: dict[str, int] = {name: len(split) for name, split in self._splits.items()}
        self.images = ImagePlacement(self._splits.values(), device, num_workers)

    @property
    def has_validation(self) -> bool:
        """Return True if there is a validation split."""
        return "val" in self._splits

    def setup(self, stage: str) -> None:
        """Move the images to the trainer's device, if they belong there (Lightning calls this)."""
        if self.trainer is not None:
            self.images.to(self.trainer.strategy.root_device)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Return the batch on the device; CUDA copies while the step before still runs."""
        return batch.to(device, non_blocking=device.type == "cuda")

    def split(self, name: SplitName) -> SplitRows:
        """Return the images of a split; a UserError if there is none."""
        if name not in self._splits:
            what = f"{self.packed.folder} has no {name} split (got {list(self.packed.splits)})."
            if name == "val":
                what = "The run has no validation split (got data.val_size=0)."
            other = [*self._splits][-1]
            raise UserError(what, fix=f"pass split={other}, or to amtml_pl.cache 'splits=[{other}]'")
        return self._splits[name]

    def class_counts(self) -> Int64[Tensor, " K"]:
        """Return the number of training images of every class."""
        train = self.split("train")
        return torch.bincount(train.stored.labels[train.rows], minlength=self.num_classes)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Return the batches left in the trainer's current epoch, in epoch 0 without a trainer."""
        epoch = 0 if self.trainer is None else self.trainer.current_epoch
        if self.teachers is not None:
            self.teachers.provide(self.train_view(epoch))
        return self.train_batches(epoch, *self._rank_and_world_size(), first=self.batches_done)

    def state_dict(self) -> dict[str, int]:
        """Return the position in the epoch (Lightning calls this method by name)."""
        return {"batches_done": self.batches_done}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the position in the epoch from a checkpoint."""
        self.batches_done = state_dict["batches_done"]

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return the validation images in order, unaugmented."""
        return self.eval_batches(self.split("val"), *self._rank_and_world_size())

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return the test images in order, unaugmented."""
        return self.eval_batches(self.split("test"), *self._rank_and_world_size())

    def train_batches(
        self, epoch: int, rank: int = 0, world_size: int = 1, *, first: int = 0
    ) -> DataLoader[Batch]:
        """Return one rank's batches of an epoch, from batch ``first`` on.

        The loader's length counts the batches before ``first`` too. The ranks share each global batch of
        ``batch_size`` samples in turn: its first sample goes to rank 0, the second to rank 1, … The last,
        short batch is kept; one of a single sample, on which batch norm cannot train, is joined to the batch
        before it. So the batches do not depend on the number of ranks.

        Raises:
            UserError: if a batch would leave a rank less than two samples.
        """
        split = self.split("train")
        state = random_bits(random_bits(self.order_seed, _ORDER), epoch)
        labels = split.stored.labels[split.rows].numpy()
        drawn = balanced_order(labels, state) if self.balanced else permutation(len(split), state)
        order = torch.from_numpy(drawn)
        batches = list(torch.split(order, self.batch_size))
        if len(batches) > 1 and len(batches[-1]) < min(2, self.batch_size):
            batches[-2:] = [torch.cat(batches[-2:])]
        smallest = min(map(len, batches))
        if world_size > 1 and smallest < 2 * world_size:
            size, N, least = self.batch_size, len(split), 2 * world_size
            larger = range(max(least, size + world_size - size % world_size), N + 1, world_size)
            fitting = [f"data.batch_size={B}, or " for B in larger if not 0 < N % B < least][:1]
            raise UserError(
                f"{'The last' if smallest < size else 'A'} batch is too small for {world_size} processes "
                f"(got {smallest} images, expected {least} or more).",
                fix="".join([*fitting, "lower trainer.devices"]),
            )
        blend = None
        if self.mixup:
            blend = Mixup(self.mixup, random_bits(random_bits(self.order_seed, _MIXUP), epoch))
        outputs = None if self.teachers is None else self.teachers.in_loader()
        view = self.train_view(epoch)
        return self._loader(
            self._reader(split, view, outputs, blend), [batch[rank::world_size] for batch in batches], first
        )

    def sample(self, size: int) -> Batch:
        """Return the first ``size`` images of the first epoch, as its first batch has them."""
        loader = self.train_batches(0)
        first: Int64[Tensor, " B"] = next(iter(loader.sampler))
        batch: Batch = loader.dataset[first[:size]]
        return batch

    def eval_batches(self, split: SplitRows, rank: int = 0, world_size: int = 1) -> DataLoader[Batch]:
        """Return one rank's unaugmented batches of a split; the ranks together have each sample once."""
        if world_size > len(split):
            raise UserError(
                f"The {split.name} split has fewer images than the run has processes (got {len(split)}, "
                f"expected {world_size} or more).",
                fix=f"lower trainer.devices or trainer.num_nodes to have {len(split)} or fewer processes",
            )
        batches = torch.split(torch.arange(len(split)), max(self.eval_batch_size, world_size))
        shares = [batch[rank::world_size] for batch in batches]
        return self._loader(self._reader(split, view=0), [share for share in shares if len(share)])

    def train_view(self, epoch: int) -> int:
        """Return the view that an epoch trains on: 1 … V in turn."""
        return 1 + (epoch if self.views is None else epoch % self.views)

    def _reader(
        self,
        split: SplitRows,
        view: int,
        outputs: Callable[[Batch], TeacherOutputs] | None = None,
        blend: Mixup | None = None,
    ) -> BatchReader:
        return BatchReader(split, self.images.images_of(split.stored), self.augment, view, outputs, blend)

    def _loader(
        self, reader: BatchReader, batches: Sequence[Int64[Tensor, " _"]], first: int = 0
    ) -> DataLoader[Batch]:
        on_gpu = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return ResumableLoader(
            reader,
            sampler=Order(batches, first),
            batch_size=None,  # an item is a whole batch already
            num_workers=self.num_workers,
            pin_memory=on_gpu,
        )

    def _rank_and_world_size(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
