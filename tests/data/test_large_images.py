"""Images of 224 pixels: what is stored of them, and how much memory the packed data takes."""

import os
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Resize

from amtml_pl.data.augment import Augmentation
from amtml_pl.data.datasets import image_folder
from amtml_pl.data.datasets.image_folder import ImageFolder
from amtml_pl.data.module import PackedDataModule
from amtml_pl.data.packing import PackedDataset, PackedManifest, pack
from amtml_pl.data.resized_crop import RandomResizedCrop
from amtml_pl.system.records import write_record
from amtml_pl.training.benchmark.peak_memory import peak_private_memory, private_megabytes
from archives import write_image_folder

SHAPE = (3, 224, 224)
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux reports private memory")


def test_the_centre_is_stored_with_the_shorter_side_resized(tmp_path):
    write_image_folder(tmp_path, size=(672, 448))
    stored = ImageFolder(tmp_path, 224).read("train").images[0].int()
    with Image.open(tmp_path / "train" / "cat" / "0000.png") as image:
        expected = np.asarray(CenterCrop(224)(Resize(224)(image)))
    inside = np.s_[:, 2:-2, 2:-2]  # at the border the resizing of a whole image sees more
    assert abs(stored - torch.from_numpy(expected.copy()).permute(2, 0, 1).int())[inside].max() <= 1


@pytest.mark.slow
@needs_linux
def test_batches_of_100_000_mapped_images_take_less_than_500_mb_of_private_memory(tmp_path):
    data = PackedDataModule(
        PackedDataset.open(sparse_folder(tmp_path, 100_000)),
        order_seed=0,
        augment=Augmentation([RandomResizedCrop()]),
        eval_batch_size=128,
        val_size=0.1,
    )
    before = private_megabytes()
    with peak_private_memory() as peak:
        for loader in (data.train_batches(0), data.eval_batches(data.split("val"))):
            for batch in islice(loader, 3):
                assert batch.images.shape == (128, *SHAPE)
    assert peak[0] - before < 500


@needs_linux
def test_packing_keeps_many_images_in_a_file_and_not_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(image_folder, "MEMORY_BYTES", 0)
    write_image_folder(tmp_path / "raw", per_class={"train": 1, "test": 1}, size=SHAPE[1:])
    for file in list((tmp_path / "raw" / "train").glob("*/*.png")):
        for copy in range(200):
            os.link(file, file.with_name(f"copy{copy:04d}.png"))
    before = private_megabytes()
    with peak_private_memory() as peak:
        packed = pack(ImageFolder(tmp_path / "raw", 224), tmp_path / "packed")
    assert packed.splits["train"].images.nbytes > 90e6
    assert peak[0] - before < 45


def sparse_folder(folder, images):
    """Return a packed folder of black images, which takes no space on a disk that leaves out zeros."""
    np.lib.format.open_memmap(folder / "train.images.npy", "w+", np.uint8, (images, *SHAPE))
    np.save(folder / "train.labels.npy", np.arange(images) % 10)
    files = {file.name: file.stat().st_size for file in folder.glob("*.npy")}
    classes = tuple("abcdefghij")
    about = {"identity": {}, "signature": None, "classes": classes, "splits": {"train": images}}
    write_record(folder / "manifest.json", PackedManifest(**about, files=files, digest="0" * 64))
    return folder
