"""Small packed images, and a module that records the batches of a fit."""

from pathlib import Path

import pytorch_lightning as pl
import torch
from torch import nn

from amtml_pl.data.augment import Augmentation, CropFlip
from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import PackedDataset
from amtml_pl.types import Split

CLASSES = ("ant", "bee", "cat")
CROP_FLIP = [CropFlip(padding=1)]  # 18 views


def split(number):
    images = torch.randint(
        0, 256, (number, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(number)
    )
    return Split(images, torch.arange(number) % 3, CLASSES)


PACKED = PackedDataset(Path("packed"), "digest", CLASSES, {"train": split(150), "test": split(31)})


def module(packed=PACKED, *, order_seed=0, operations=CROP_FLIP, **arguments):
    given = {"batch_size": 32, "val_size": 30} | arguments
    return PackedDataModule(packed, order_seed=order_seed, augment=Augmentation(operations), **given)


class Recorder(pl.LightningModule):
    """A module that records epoch, view and samples of each batch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, batch.view, batch.index.tolist()))
        return self.weight * batch.images.mean()

    def validation_step(self, batch, batch_idx):
        assert batch.view == 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(folder, epochs, **options):
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=1, default_root_dir=folder, **options,
    )  # fmt: skip
