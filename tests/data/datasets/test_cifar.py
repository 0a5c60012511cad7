import pickle
import struct
import tarfile

import numpy as np
import pytest
import torch

from amtml_pl.data.datasets.cifar import Cifar10, Cifar100
from amtml_pl.errors import UserError
from archives import CIFAR10_CLASSES, pickled, write_cifar10, write_cifar100, write_tar

BATCH = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
META = {"label_names": list(CIFAR10_CLASSES)}


def write_batches(folder, *, train=BATCH, meta=META):
    members = {f"data_batch_{i}": train for i in range(1, 6)} | {"test_batch": BATCH, "batches.meta": meta}
    return write_tar(folder / "cifar-10-python.tar.gz", "cifar-10-batches-py", pickled(members))


def test_cifar10_gives_the_pixels_of_its_batches_in_order(tmp_path):
    archive = write_cifar10(tmp_path, train_per_class=3, test_per_class=2)
    train, test = Cifar10(tmp_path).read("train"), Cifar10(tmp_path).read("test")
    with tarfile.open(archive) as tar:
        batches = [pickle.load(tar.extractfile(f"cifar-10-batches-py/data_batch_{i}")) for i in range(1, 6)]  # noqa: S301
    rows = np.concatenate([batch["data"] for batch in batches])
    for image, row in zip(train.images, rows, strict=True):
        red, green, blue = (
            row[:1024].reshape(32, 32),
            row[1024:2048].reshape(32, 32),
            row[2048:].reshape(32, 32),
        )
        assert torch.equal(image, torch.from_numpy(np.stack([red, green, blue])))
    assert train.labels.tolist() == [label for batch in batches for label in batch["labels"]]
    assert train.classes == CIFAR10_CLASSES
    assert (len(train), len(test)) == (30, 20)


def test_cifar100_has_fine_labels(tmp_path):
    write_cifar100(tmp_path)
    train = Cifar100(tmp_path).read("train")
    assert train.labels.tolist() == list(range(100))
    assert train.classes[3] == "fine 03"


def test_the_archive_may_lie_one_folder_above(tmp_path):
    write_cifar10(tmp_path)
    source = Cifar10(tmp_path / "cifar10")
    assert source.missing() is None
    assert len(source.read("test")) == 20


@pytest.mark.parametrize("place", [".", "cifar10", "cifar10/cifar-10-batches-py"])
def test_the_unpacked_folder_serves_as_well_as_the_archive(tmp_path, place):
    archive = write_cifar10(tmp_path / "elsewhere")
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / place.removesuffix("/cifar-10-batches-py"), filter="data")
    folder = tmp_path / "cifar10" if place == "." else tmp_path / place
    source, oracle = Cifar10(folder), Cifar10(tmp_path / "elsewhere")
    assert source.missing() is None
    assert torch.equal(source.read("train").images, oracle.read("train").images)


def test_a_pickle_as_python_2_wrote_it_is_understood(tmp_path):
    pixels = bytes(range(256)) * 12

    def text(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode()

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + text("b") + b"tR"
    dtype = b"cnumpy\ndtype\n(" + text("u1") + b"K\x00K\x01tR(K\x03" + text("|") + b"NNN"
    dtype += 2 * b"J\xff\xff\xff\xff" + b"K\x00tb"
    array += b"(K\x01(K\x01M\x00\x0ct" + dtype + b"I00\nT" + struct.pack("<i", len(pixels)) + pixels + b"tb"
    batch = b"\x80\x02}(" + text("data") + array + text("labels") + b"](K\x07eu."
    assert set(pickle.loads(batch, encoding="latin1")) == {"data", "labels"}  # noqa: S301
    members = (
        {f"data_batch_{i}": batch for i in range(1, 6)}
        | {"test_batch": batch}
        | pickled({"batches.meta": META})
    )
    write_tar(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", members)
    test = Cifar10(tmp_path).read("test")
    assert test.images.numpy().tobytes() == pixels
    assert test.labels.tolist() == [7]


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_that_would_run_code_is_refused_and_never_run(tmp_path):
    trace = tmp_path / "it ran"
    write_batches(tmp_path, train={"data": Malicious(str(trace)), "labels": []})
    with pytest.raises(
        UserError, match=r"data_batch_1 is a pickle that asks to run \w+\.open.*nothing in it was run"
    ):
        Cifar10(tmp_path).read("train")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        ({"labels": [0]}, "'data' is a NoneType, expected uint8"),
        ({"data": np.zeros((2, 3072), np.float32), "labels": [0, 1]}, r"'data' is float32 \(2, 3072\)"),
        ({"data": np.zeros((2, 100), np.uint8), "labels": [0, 1]}, r"expected uint8 \(n, 3072\)"),
        ({"data": BATCH["data"], "labels": [0]}, "'labels' is a list of 1, expected 2 labels"),
        ({"data": BATCH["data"], "labels": [0, 10]}, "label 10, expected 0 to 9"),
        ([1, 2], "holds a list, expected a dictionary"),
    ],
)
def test_a_batch_of_another_structure_is_refused_by_name(tmp_path, batch, complaint):
    write_batches(tmp_path, train=batch)
    with pytest.raises(UserError, match=rf"data_batch_1.*{complaint}"):
        Cifar10(tmp_path).read("train")


def test_a_meta_file_with_too_few_names_is_refused(tmp_path):
    write_batches(tmp_path, meta={"label_names": ["cat"]})
    with pytest.raises(
        UserError, match=r"batches.meta: 'label_names' is a list of 1, expected 10 class names"
    ):
        Cifar10(tmp_path).read("train")


def test_a_damaged_pickle_is_refused_by_name(tmp_path):
    members = {f"data_batch_{i}": b"\x80\x02}(U" for i in range(1, 6)} | pickled({"batches.meta": META})
    write_tar(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", members)
    with pytest.raises(UserError, match=r"data_batch_1 is damaged"):
        Cifar10(tmp_path).read("train")
    with pytest.raises(UserError, match=r"lacks 1 of the 2 files asked for: test_batch"):
        Cifar10(tmp_path).read("test")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.95])
def test_a_truncated_archive_is_refused_by_name(tmp_path, share):
    archive = write_cifar10(tmp_path)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz .* truncated or corrupt(.|\n)*delete"):
        Cifar10(tmp_path).read("train")


def test_a_repacked_archive_is_used_with_a_warning(tmp_path, caplog):
    write_cifar10(tmp_path)
    Cifar10(tmp_path).fetch()
    assert "is not the official archive" in caplog.text


def test_what_is_missing_is_said_with_every_place_and_both_ways_out(tmp_path):
    folder = tmp_path / "cifar10"
    source = Cifar10(folder, mirrors=[])
    with pytest.raises(UserError) as error:
        source.fetch()
    message = str(error.value)
    for place in (folder, tmp_path):
        assert str(place / "cifar-10-python.tar.gz") in message
        assert str(place / "cifar-10-batches-py") in message
    assert f"put the archive at {folder / 'cifar-10-python.tar.gz'}" in message
    assert "dataset.source.mirrors=[" in message
    assert source.signature() is None
    assert source.download_bytes() is None
    assert Cifar10(folder).download_bytes() == 170_498_071


def test_a_half_unpacked_folder_is_said_to_lack_its_files(tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "meta").touch()
    assert "cifar-100-python lacks train, test." in Cifar100(tmp_path).missing()


def test_the_signature_follows_the_raw_data(tmp_path):
    write_cifar10(tmp_path, train_per_class=1)
    before = Cifar10(tmp_path).signature()
    assert Cifar10(tmp_path).signature() == before
    write_cifar10(tmp_path, train_per_class=2)
    assert Cifar10(tmp_path).signature() != before
    assert len(Cifar10(tmp_path).read("train")) == 20
