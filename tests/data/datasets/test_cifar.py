import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch

from amtml_pl.data.datasets.cifar import Cifar10, Cifar100
from amtml_pl.errors import UserError
from archives import CIFAR10_CLASSES, checksums, pickled, write_cifar10, write_cifar100, write_tar

META = {"label_names": list(CIFAR10_CLASSES)}


def cifar10(archive, folder=None, mirrors=()):
    """The source for which a small archive is the official one."""
    return Cifar10(folder or archive.parent, mirrors, **checksums(archive))


def test_cifar10_gives_the_pixels_of_its_batches_in_order(tmp_path):
    archive = write_cifar10(tmp_path, train_per_class=3, test_per_class=2)
    train, test = cifar10(archive).read("train"), cifar10(archive).read("test")
    with tarfile.open(archive) as tar:
        batches = [pickle.load(tar.extractfile(f"cifar-10-batches-py/data_batch_{i}")) for i in range(1, 6)]  # noqa: S301
    rows = np.concatenate([batch["data"] for batch in batches])
    for image, row in zip(train.images, rows, strict=True):
        channels = [row[start : start + 1024].reshape(32, 32) for start in (0, 1024, 2048)]
        assert torch.equal(image, torch.from_numpy(np.stack(channels)))
    assert train.labels.tolist() == [label for batch in batches for label in batch["labels"]]
    assert train.classes == CIFAR10_CLASSES
    assert (len(train), len(test)) == (30, 20)


def test_cifar100_has_fine_labels(tmp_path):
    train = Cifar100(tmp_path, [], **checksums(write_cifar100(tmp_path))).read("train")
    assert train.labels.tolist() == list(range(100))
    assert train.classes[3] == "fine 03"


def unpacked(tmp_path, into="."):
    """Write an archive elsewhere, and unpack it into a folder."""
    archive = write_cifar10(tmp_path / "elsewhere")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / into, filter="data")
    return archive


@pytest.mark.parametrize("place", [".", "cifar10", "cifar10/cifar-10-batches-py"])
def test_the_archive_or_its_unpacked_folder_is_found_in_any_usual_place(tmp_path, place):
    archive = unpacked(tmp_path, place.removesuffix("/cifar-10-batches-py"))
    folder = tmp_path / "cifar10" if place == "." else tmp_path / place
    source = cifar10(archive, folder)
    assert source.missing() is None
    above = cifar10(archive, archive.parent / "cifar10")
    assert torch.equal(source.read("train").images, above.read("train").images)


def python_2_batch(pixels: bytes) -> bytes:
    """Return a batch of one image in the format of Python 2."""

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text("b") + b"tR"
    dtype = b"cnumpy\ndtype\n(" + text("u1") + b"K\x00K\x01tR(K\x03" + text("|") + b"NNN"
    dtype += 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    array += b"(K\x01(K\x01M\x00\x0ct" + dtype + b"I00\nT" + struct.pack("<i", len(pixels)) + pixels + b"tb"
    return b"\x80\x02}(" + text("data") + array + text("labels") + b"](K\x07eu."


@pytest.mark.filterwarnings("error")
def test_a_pickle_of_python_2_is_read(tmp_path):
    pixels = bytes(range(256)) * 12
    members = {"test_batch": python_2_batch(pixels)} | pickled({"batches.meta": META})
    archive = write_tar(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", members)
    test = cifar10(archive).read("test")
    assert test.images.numpy().tobytes() == pixels
    assert test.labels.tolist() == [7]


def test_another_archive_is_refused_with_the_command_that_fetches_the_official_one(tmp_path):
    archive = write_cifar10(tmp_path)
    source = cifar10(archive, mirrors=["https://host/folder/"])
    archive.write_bytes(archive.read_bytes()[:-1])
    for read in (source.fetch, lambda: source.read("train")):
        with pytest.raises(UserError, match=rf"official file \(got md5 \w+, expected {source.md5}\)") as e:
            read()
        assert f"curl --location --output '{archive}' https://host/folder/{archive.name}" in str(e.value)
    with pytest.raises(UserError, match=rf"put the official cifar-10-python.tar.gz at {archive}"):
        Cifar10(tmp_path, [], source.md5).fetch()


def test_another_file_in_the_unpacked_folder_is_refused_by_name(tmp_path):
    archive = unpacked(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"\x80\x02}.")
    source = cifar10(archive, tmp_path, ["https://host"])
    with pytest.raises(UserError, match=r"data_batch_3 is not the official file (.|\n)*curl .*/cifar-10-pyt"):
        source.read("test")


def test_a_missing_archive_is_reported_with_every_place_and_both_fixes(tmp_path):
    folder = tmp_path / "cifar10"
    sums = {"md5": "0" * 32, "members": {"data_batch_1": "0" * 32}}
    source = Cifar10(folder, [], **sums)
    for place in (folder, tmp_path):
        assert str(place / "cifar-10-python.tar.gz") in source.missing()
        assert str(place / "cifar-10-batches-py") in source.missing()
    fix = rf"put .* at {folder}/cifar-10-python.tar.gz, .*dataset.source.mirrors="
    with pytest.raises(UserError, match=rf"is missing, and the download failed: no mirror(.|\n)*{fix}"):
        source.fetch()
    assert source.signature() is None
    assert source.download_bytes() is None
    assert Cifar10(folder, ["https://host"], **sums).download_bytes() == 170_498_071
    assert "cifar-10-batches-py" not in Cifar10(folder, [], "0").missing()  # no checksums, no folder


def test_the_signature_follows_the_raw_data(tmp_path):
    archive = write_cifar10(tmp_path, train_per_class=1)
    before = cifar10(archive).signature()
    assert cifar10(archive).signature() == before
    write_cifar10(tmp_path, train_per_class=2)
    assert cifar10(archive).signature() != before
    assert len(cifar10(archive).read("train")) == 20
