"""CINIC-10: CIFAR-10's classes with more images, from ImageNet."""

from __future__ import annotations

from amtml_pl.data.datasets.archive import ArchiveSource
from amtml_pl.data.datasets.image_folder import read_class_folders
from amtml_pl.types import Split, SplitName


class Cinic10(ArchiveSource):
    """CINIC-10: three splits of 90,000 colour images of 32×32 pixels in 10 classes.

    Its ``valid`` folder is our ``val``. Source: https://arxiv.org/abs/1810.03505 and
    https://datashare.ed.ac.uk/handle/10283/3192. The checksum is the one that several independent
    loaders carry; the source itself publishes none.
    """

    archive = "CINIC-10.tar.gz"
    unpacked = "CINIC-10"
    size = 687_544_992
    splits: tuple[SplitName, ...] = ("train", "val", "test")

    def read(self, split: SplitName) -> Split:
        """Return one split, class by class, images in the order of their names."""
        return read_class_folders(self.files(), {"train": "train", "val": "valid", "test": "test"}, split, 32)
