import json
import logging
import multiprocessing
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from amtml_pl.data import packing
from amtml_pl.data.datasets.cifar import Cifar10
from amtml_pl.data.datasets.digits import Digits
from amtml_pl.data.datasets.image_folder import ImageFolder
from amtml_pl.data.packing import PackedDataset, is_packed, pack, packed_folder
from amtml_pl.data.source import DatasetSource
from amtml_pl.errors import UserError
from amtml_pl.types import Split
from archives import checksums, write_cifar10, write_image_folder


class Made(DatasetSource):
    """A source of given labels that records which splits are read."""

    splits = ("train", "test")

    def __init__(self, labels=(0, 1, 0), classes=("cat", "dog")):
        self.labels, self.classes = labels, classes
        self.now, self.reads = "first state", []

    def identity(self):
        return {"source": "Made"}

    def signature(self):
        return self.now

    def read(self, split):
        self.reads.append(split)
        labels = torch.tensor(self.labels)
        images = torch.arange(len(labels) * 48).remainder(251).to(torch.uint8).reshape(-1, 3, 4, 4)
        return Split(images, labels, self.classes)


def test_packed_splits_hold_what_the_source_reads(tmp_path):
    source = Digits(image_size=8)
    packed = pack(source, tmp_path)
    assert list(packed.splits) == ["train", "test"]
    for name, split in packed.splits.items():
        read = source.read(name)
        assert torch.equal(split.images, read.images)
        assert torch.equal(split.labels, read.labels)
        assert split.classes == packed.classes == read.classes


def test_a_second_pack_maps_the_files_without_reading_the_source(tmp_path):
    source = Made()
    assert not is_packed(source, tmp_path)
    first = pack(source, tmp_path)
    assert is_packed(source, tmp_path)
    second = pack(source, tmp_path)
    assert source.reads == ["train", "test"]
    assert first.digest == second.digest
    assert first.folder == packed_folder(source, tmp_path)
    assert re.fullmatch(r"made-[0-9a-f]{8}", first.folder.name)


def test_writing_to_a_mapped_tensor_changes_no_file_and_warns_of_nothing(tmp_path):
    folder = pack(Made(), tmp_path).folder
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images = PackedDataset.open(folder).splits["train"].images
    images.zero_()
    assert PackedDataset.open(folder).splits["train"].images.any()


def test_changed_raw_data_is_packed_again_with_a_log_message(tmp_path, caplog):
    source = Made()
    before = pack(source, tmp_path)
    source.now, source.labels = "second state", (1, 0, 1)
    with caplog.at_level(logging.INFO):
        after = pack(source, tmp_path)
    assert "has changed since it was packed" in caplog.text
    assert after.splits["train"].labels.tolist() == [1, 0, 1]
    assert before.splits["train"].labels.tolist() == [0, 1, 0], "runs keep what they have mapped"
    assert before.digest != after.digest
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == [after.folder.name]


def test_packed_data_is_used_after_the_raw_data_is_deleted(tmp_path):
    archive = write_cifar10(tmp_path / "raw")
    source = Cifar10(archive.parent, [], **checksums(archive))
    digest = pack(source, tmp_path / "packed").digest
    shutil.rmtree(archive.parent)
    assert pack(source, tmp_path / "packed").digest == digest


def test_the_digest_depends_on_content_and_not_on_the_source_folder(tmp_path):
    write_image_folder(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    a, b = (pack(ImageFolder(tmp_path / name, 32), tmp_path / "packed") for name in "ab")
    assert a.folder != b.folder
    assert a.digest == b.digest
    changes = ({}, {"labels": (0, 1, 1)}, {"classes": ("cat", "doe")}, {"labels": (0, 1, 0, 0)})
    assert len({pack(Made(**given), tmp_path / str(n)).digest for n, given in enumerate(changes)}) == 4


@pytest.mark.parametrize(
    ("labels", "complaint"),
    [((0, 0), "no image of class 'dog'"), ((0, 2), "wrong labels .got 0 to 2, expected 0 to 1"),
     ((-1, 1), "wrong labels .got -1 to 1, expected 0 to 1")],
)  # fmt: skip
def test_an_empty_class_or_a_label_out_of_range_is_refused(tmp_path, labels, complaint):
    with pytest.raises(UserError, match=complaint):
        pack(Made(labels), tmp_path)
    assert not is_packed(Made(), tmp_path)


def test_leftovers_of_a_killed_packing_are_removed(tmp_path):
    growing = packed_folder(Made(), tmp_path).with_suffix(".tmp")
    growing.mkdir()
    (growing / "train.images.npy").write_bytes(b"half")
    assert len(pack(Made(), tmp_path).splits["train"]) == 3
    assert not growing.exists()


@pytest.mark.parametrize("file", ["train.images.npy", "test.labels.npy", "manifest.json"])
def test_a_truncated_or_missing_file_is_named(tmp_path, file):
    folder = pack(Made(), tmp_path).folder
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-9])
    with pytest.raises(UserError, match=rf"{file} (.|\n)*rm -r '{folder}' and repeat"):
        PackedDataset.open(folder)
    (folder / file).unlink()
    with pytest.raises(UserError, match=file):
        PackedDataset.open(folder)


def test_a_stray_file_beside_the_packed_ones_is_ignored(tmp_path):
    folder = pack(Made(), tmp_path).folder
    (folder / "._train.images.npy").write_bytes(b"of a file server")
    assert len(PackedDataset.open(folder).splits["train"]) == 3


def test_another_format_and_changed_labels_are_refused(tmp_path):
    folder = pack(Made(), tmp_path).folder
    for changed, reason in (
        ([0, 1, 1], "does not match the checksum"),
        ([0, 1, 7], "has labels out of range"),
    ):
        np.save(folder / "train.labels.npy", np.array(changed))
        with pytest.raises(UserError, match=reason):
            pack(Made(), tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(UserError, match=r"has format 99 \(expected 2"):
        pack(Made(), tmp_path)


def test_a_full_disk_is_reported_before_writing(tmp_path, monkeypatch):
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match=r"cannot be written: .*0 MB free(.|\n)*paths.data"):
        pack(Made(), tmp_path)
    assert not is_packed(Made(), tmp_path)


def test_two_processes_share_the_work(tmp_path):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        packed = pool.starmap(_pack_slowly, [(tmp_path, i) for i in range(2)])
    assert sorted(reads for reads, _ in packed) == [0, 2]
    assert packed[0][1] == packed[1][1]


def _pack_slowly(root: Path, worker: int) -> tuple[int, str]:
    source = Made()
    (root / f"ready {worker}").touch()
    while len(list(root.glob("ready *"))) < 2:
        os.sched_yield()
    digest = pack(source, root).digest
    return len(source.reads), digest
