"""Archives that were made to do harm: another checksum is never opened, and no pickle runs."""

import tarfile
import zipfile

import numpy as np
import pytest
from canary import PAYLOADS, works

from amtml_pl.data.datasets.cifar import Cifar10
from amtml_pl.data.datasets.tiny_imagenet import TinyImageNet
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from archives import CIFAR10_CLASSES, checksums, pickled, write_cifar10, write_tar, write_tiny_imagenet


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_in_a_batch_is_refused_and_never_run_though_its_checksum_was_vouched_for(
    hostile, out, canary, payload
):
    assert works(payload(canary))
    batch = {"data": np.zeros((10, 3072), np.uint8), "labels": payload(canary)}
    names = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    members = pickled({**dict.fromkeys(names, batch), "batches.meta": {"label_names": [*CIFAR10_CLASSES]}})
    archive = write_tar(hostile / "cifar-10-python.tar.gz", "cifar-10-batches-py", members)
    with pytest.raises(UserError, match=r"data_batch_1 calls .* \(expected arrays\)"):
        pack(Cifar10(hostile, [], **checksums(archive)), out)


def test_a_changed_archive_is_never_opened(hostile, out, monkeypatch):
    archives = write_cifar10(hostile), write_tiny_imagenet(hostile)
    sources = [
        kind(hostile, [], **checksums(a)) for kind, a in zip((Cifar10, TinyImageNet), archives, strict=True)
    ]
    for archive, source in zip(archives, sources, strict=True):
        content = bytearray(archive.read_bytes())
        content[len(content) // 3] ^= 1
        archive.write_bytes(content)
        for module, name in ((zipfile, "ZipFile"), (tarfile, "open")):
            monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it was opened"))
        with pytest.raises(UserError, match="is not the official file"):
            pack(source, out)
