"""Archives that were made to do harm: they are refused with a message, and write nothing anywhere."""

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from canary import at_most, flipped, outcome
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from amtml_pl.data.datasets import bounds
from amtml_pl.data.datasets.cifar import Cifar10
from amtml_pl.data.datasets.tiny_imagenet import TinyImageNet
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from archives import CIFAR10_CLASSES, pickled, write_cifar10, write_tar, write_tiny_imagenet

TOP = "cifar-10-batches-py"
META = {"label_names": list(CIFAR10_CLASSES)}
BATCH = {"data": np.zeros((10, 3072), np.uint8), "labels": list(range(10))}
WHOLE = pickled(
    {**{f"data_batch_{i}": BATCH for i in range(1, 6)}, "test_batch": BATCH, "batches.meta": META}
)
OUTSIDE = ("../escaped", "/escaped", f"{TOP}/../../escaped", f"{TOP}/../escaped", "..")
FUZZ = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def cifar(folder):
    return Cifar10(folder, mirrors=[])


def with_member(folder, info, content=b""):
    """The archive of a whole data set, with one more member at its front."""
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.addfile(info, io.BytesIO(content))
        for name, whole in WHOLE.items():
            member = tarfile.TarInfo(f"{TOP}/{name}")
            member.size = len(whole)
            if member.name != info.name:
                tar.addfile(member, io.BytesIO(whole))
    return folder


def gzipped(folder, raw):
    with gzip.open(folder / "cifar-10-python.tar.gz", "wb", compresslevel=1) as file:
        for part in [raw] if isinstance(raw, bytes) else raw:
            file.write(part)
    return folder


def raw_tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in WHOLE.items():
            info = tarfile.TarInfo(f"{TOP}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


# ---- names and links that lead out


def test_the_same_archive_without_a_hostile_member_is_read(hostile, out):
    write_tar(hostile / "cifar-10-python.tar.gz", TOP, WHOLE)
    assert len(pack(cifar(hostile), out).splits["train"]) == 50


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_tar_member_that_leads_out_is_refused(hostile, out, name):
    info = tarfile.TarInfo(name)
    info.size = 4
    with pytest.raises(UserError, match=r"(?s)which leads out of its folder.*take the official archive"):
        pack(cifar(with_member(hostile, info, b"harm")), out)


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "tiny-imagenet-200/train/../../../escaped"])
def test_a_zip_member_that_leads_out_is_refused(hostile, out, name):
    archive = write_tiny_imagenet(hostile)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(name, b"harm")
    with pytest.raises(UserError, match="which leads out of its folder"):
        pack(TinyImageNet(hostile, mirrors=[]), out)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_a_link_or_device_in_the_place_of_a_batch_is_not_followed(hostile, out, tmp_path, kind):
    info = tarfile.TarInfo(f"{TOP}/data_batch_1")
    info.type, info.linkname = kind, str(tmp_path / "here" / "secret.txt")
    with pytest.raises(UserError, match="lacks 1 of the 6 files asked for: data_batch_1"):
        pack(cifar(with_member(hostile, info)), out)


def test_a_link_in_a_zip_is_no_image(hostile, out, tmp_path):
    archive = write_tiny_imagenet(hostile, test_per_class=1)
    link = zipfile.ZipInfo("tiny-imagenet-200/val/images/val_9.JPEG")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(link, str(tmp_path / "here" / "secret.txt"))
        file.writestr("tiny-imagenet-200/val/more.txt", b"")
    source = TinyImageNet(hostile, mirrors=[])
    assert "val/images/val_9.JPEG" not in source.files().names("val/images")


@pytest.mark.parametrize("name", ["../../../here/secret.txt", "/etc/hostname", "images/../val_0.JPEG", ""])
def test_an_annotation_does_not_lead_out_of_the_folder_of_its_images(hostile, out, name):
    with zipfile.ZipFile(write_tiny_imagenet(hostile)) as archive:
        archive.extractall(hostile)  # noqa: S202 (written above)
    (hostile / "tiny-imagenet-200.zip").unlink()
    (hostile / "tiny-imagenet-200/val/val_annotations.txt").write_text(f"{name}\tn00000000\t0\t0\t63\t63\n")
    with pytest.raises(
        UserError, match=r"line 1 of val/val_annotations.txt is .*expected the name of an image"
    ):
        pack(TinyImageNet(hostile, mirrors=[]), out)


def test_two_members_of_one_name_are_refused(hostile, out):
    gzipped(hostile, raw_tar()[: -tarfile.RECORDSIZE] + raw_tar())
    info = tarfile.TarInfo(f"./{TOP}/data_batch_1")
    with pytest.raises(UserError, match="has two members 'data_batch_1'"):
        pack(cifar(with_member(hostile, info)), out)


# ---- bombs


@pytest.mark.parametrize("name", ["data_batch_1", "another", "." + "x" * 90])
def test_a_tar_that_unpacks_to_more_than_any_data_set_is_refused_early(hostile, out, name):
    info = tarfile.TarInfo(f"{TOP}/{name}")
    info.size = 400 << 20
    content = b"\0" * (1 << 20)
    gzipped(hostile, [info.tobuf(), *[content] * 400])
    with (
        at_most(megabytes=50),
        pytest.raises(UserError, match=r"cifar-10-python.tar.gz .*unpacks to more than [\d,]+ bytes"),
    ):
        pack(cifar(hostile), out)


def test_a_tar_whose_names_are_a_bomb_is_refused(hostile, out):
    """A header of its own, of any length, may hold a member's name; tarfile reads it whole."""
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 400 << 20
    gzipped(hostile, [info.tobuf(tarfile.USTAR_FORMAT), *[b"\0" * (1 << 20)] * 400])
    with pytest.raises(UserError, match="unpacks to more than"):
        pack(cifar(hostile), out)


@pytest.mark.parametrize("size", [8 << 60, -(1 << 40), -512])
def test_a_tar_that_claims_an_impossible_size_is_refused_and_not_read_for_ever(hostile, out, size):
    info = tarfile.TarInfo(f"{TOP}/data_batch_1")
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % (sum(header) & 0o777777)
    gzipped(hostile, bytes(header) + b"\0" * 10240)
    with pytest.raises(UserError, match=r"claims|truncated or corrupt"):
        pack(cifar(hostile), out)


def test_more_members_than_any_data_set_has_are_refused(hostile, out, monkeypatch):
    monkeypatch.setattr(bounds, "MEMBERS", 6)
    write_tar(hostile / "cifar-10-python.tar.gz", TOP, WHOLE)
    with pytest.raises(UserError, match="has more than 6 members"):
        pack(cifar(hostile), out)


@pytest.mark.parametrize("members", [1, 30])
def test_a_zip_that_unpacks_to_more_than_any_data_set_is_refused_before_it_is_unpacked(hostile, out, members):
    with zipfile.ZipFile(
        hostile / "tiny-imagenet-200.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1
    ) as file:
        for number in range(members):
            file.writestr(f"tiny-imagenet-200/train/n{number}/a.JPEG", b"\0" * (120 << 20) if members == 1
                          else b"\0" * (4 << 20))  # fmt: skip
    with at_most(megabytes=20), pytest.raises(UserError, match="unpacks to more than"):
        pack(TinyImageNet(hostile, mirrors=[]), out)


def test_a_zip_that_claims_little_and_holds_much_gives_no_more_than_it_claims(hostile, out):
    archive = write_tiny_imagenet(hostile)
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("tiny-imagenet-200/train/n00000000/images/bomb.JPEG", b"\0" * (100 << 20))
    content = archive.read_bytes().replace(struct.pack("<I", 100 << 20), struct.pack("<I", 64))
    archive.write_bytes(content)
    with at_most(megabytes=40), pytest.raises(UserError, match="truncated or corrupt"):
        pack(TinyImageNet(hostile, mirrors=[]), out)


def test_an_encrypted_zip_is_refused(hostile, out):
    archive = write_tiny_imagenet(hostile)
    content = bytearray(archive.read_bytes())
    for signature, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = -1
        while (start := content.find(signature, start + 1)) >= 0:
            content[start + place] |= 1
    archive.write_bytes(bytes(content))
    with pytest.raises(UserError, match=r"(?s)truncated or corrupt: .*encrypted"):
        pack(TinyImageNet(hostile, mirrors=[]), out)


# ---- damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Both archives as bytes, and the images in them."""
    folder = tmp_path_factory.mktemp("whole")
    tar, tiny = write_cifar10(folder), write_tiny_imagenet(folder, classes=2, train_per_class=1)
    sources = {"tar": cifar(folder), "zip": TinyImageNet(folder, mirrors=[])}
    return {"tar": tar.read_bytes(), "zip": tiny.read_bytes()}, {
        kind: source.read("train") for kind, source in sources.items()
    }


def same_or_refused(kind, content, images, folder):
    name = {"tar": "cifar-10-python.tar.gz", "zip": "tiny-imagenet-200.zip"}[kind]
    (folder / name).write_bytes(content)
    source = cifar(folder) if kind == "tar" else TinyImageNet(folder, mirrors=[])
    found = outcome(source.read, "train")
    os.utime(folder / name, ns=(0, hash(content) % 2**50))  # else the next one may be taken for this one
    assert isinstance(found, UserError) or (
        found.images.equal(images[kind].images) and found.labels.equal(images[kind].labels)
    )


@FUZZ
@given(kind=st.sampled_from(["tar", "zip"]), bit=st.integers(0, 2**40))
@example(kind="tar", bit=0)
@example(kind="zip", bit=0)
def test_a_flipped_bit_changes_nothing_or_is_refused(whole, hostile, kind, bit):
    content, images = whole
    same_or_refused(kind, flipped(content[kind], bit), images, hostile)


@FUZZ
@given(kind=st.sampled_from(["tar", "zip"]), share=st.floats(0, 0.999))
def test_a_truncated_archive_is_refused(whole, hostile, kind, share):
    content, images = whole
    same_or_refused(kind, content[kind][: int(share * len(content[kind]))], images, hostile)


@FUZZ
@given(bits=st.lists(st.integers(0, 2**40), min_size=1, max_size=8))
def test_a_tar_with_changed_headers_under_a_right_checksum_never_crashes(hostile, bits):
    raw = raw_tar()
    for bit in bits:
        place = bit % (8 * 512)  # of the headers, where the structure lies
        start = 8 * (bit // (8 * 512) % (len(raw) // 512) * 512)
        raw = flipped(raw, start + place)
    outcome(cifar(gzipped(hostile, raw)).read, "train")


@FUZZ
@given(content=st.binary(max_size=2000))
def test_bytes_that_are_no_archive_are_refused(hostile, content):
    (hostile / "cifar-10-python.tar.gz").write_bytes(content)
    assert isinstance(outcome(cifar(hostile).read, "train"), UserError)
