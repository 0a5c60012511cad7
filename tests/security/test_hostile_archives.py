"""Malicious archives: one with another checksum is never opened, and no pickle runs."""

import tarfile
import zipfile

import numpy as np
import pytest

from amtml_pl.data.datasets.cifar import Cifar10
from amtml_pl.data.datasets.tiny_imagenet import TinyImageNet
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from archives import CIFAR10_CLASSES, checksums, pickled, write_cifar10, write_tar, write_tiny_imagenet


def test_a_payload_in_a_batch_with_the_right_checksum_is_never_run(hostile, out, payload):
    batch = {"data": np.zeros((10, 3072), np.uint8), "labels": payload}
    names = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    members = pickled({**dict.fromkeys(names, batch), "batches.meta": {"label_names": [*CIFAR10_CLASSES]}})
    archive = write_tar(hostile / "cifar-10-python.tar.gz", "cifar-10-batches-py", members)
    with pytest.raises(UserError, match=r"data_batch_1 in .* is not safe to load: it calls "):
        pack(Cifar10(hostile, [], **checksums(archive)), out)


@pytest.mark.parametrize(
    ("write", "kind", "opener"),
    [(write_cifar10, Cifar10, (tarfile, "open")), (write_tiny_imagenet, TinyImageNet, (zipfile, "ZipFile"))],
)
def test_a_changed_archive_is_never_opened(hostile, out, monkeypatch, write, kind, opener):
    archive = write(hostile)
    source = kind(hostile, [], **checksums(archive))
    content = bytearray(archive.read_bytes())
    content[len(content) // 3] ^= 1
    archive.write_bytes(content)
    monkeypatch.setattr(*opener, lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(UserError, match="is not the official file"):
        pack(source, out)
