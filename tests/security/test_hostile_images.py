"""Image files that were made to do harm, and damaged ones: they are named, and no other image is lost."""

import io
import struct
import zlib

import numpy as np
import pytest
from canary import at_most, flipped, outcome
from hypothesis import given
from hypothesis import strategies as st
from nested import FUZZ
from PIL import Image

from amtml_pl.data.datasets.image_folder import SUFFIXES, ImageFolder
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from archives import encoded, write_image_folder

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
CONTENT = {kind: encoded(PICTURE, kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "PPM", "GIF")}


def png(width, height, bits=1):
    """A picture of zeros, as small as it can be written."""
    row = b"\0" * (1 + (width * bits + 7) // 8)
    packer = zlib.compressobj(1)
    body = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", body), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@pytest.fixture
def folder(hostile):
    return write_image_folder(hostile, classes=("cat", "dog"))


def test_a_picture_written_by_hand_is_read_where_it_is_small(folder, out):
    (folder / "train" / "cat" / "0000.png").write_bytes(png(40, 40))
    assert (pack(ImageFolder(folder, 32), out).splits["train"].images[0] == 0).all()


@pytest.mark.parametrize(("width", "height"), [(12_000, 8_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_of_more_pixels_than_any_photograph_is_refused_before_it_is_unpacked(
    folder, out, width, height
):
    content = png(100, 100)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    content = content[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + content[33:]
    (folder / "train" / "cat" / "0000.png").write_bytes(content)
    with (
        at_most(megabytes=30),
        pytest.raises(UserError, match=r"(?s)1 of 8 images .* cannot be read: train/cat/0000.png \(.*pixels"),
    ):
        pack(ImageFolder(folder, 32), out)


def test_a_program_that_calls_itself_a_picture_is_not_started(folder, out, canary):
    program = (
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n({canary}) (w) file closefile\n"
    )
    (folder / "train" / "cat" / "0000.png").write_text(program)
    assert Image.open(io.BytesIO(program.encode())).format == "EPS"  # what Pillow does where it is let
    with pytest.raises(UserError, match=r"train/cat/0000.png \(none of PNG, JPEG, "):
        pack(ImageFolder(folder, 32), out)


def test_a_link_that_leads_into_itself_is_refused_and_not_followed_for_ever(folder, out):
    (folder / "train/cat/again").symlink_to(folder / "train", target_is_directory=True)
    with pytest.raises(UserError, match="again is a link to a folder that it lies in"):
        pack(ImageFolder(folder, 32), out)


def test_every_kind_of_picture_that_is_known_is_read_whatever_its_name_says(folder, out):
    for number, content in enumerate(CONTENT.values()):
        (folder / "train" / "cat" / f"x{number}.jpg").write_bytes(content)
    assert len(pack(ImageFolder(folder, 16), out).splits["train"]) == 8 + len(CONTENT)


@FUZZ
@given(
    kind=st.sampled_from(sorted(CONTENT)), bits=st.lists(st.integers(0, 2**20), max_size=6),
    share=st.floats(0.1, 1), suffix=st.sampled_from(sorted(SUFFIXES)),
)  # fmt: skip
def test_damaged_pictures_are_read_or_named(hostile, kind, bits, share, suffix):
    content = CONTENT[kind]
    for bit in bits:
        content = flipped(content, bit)
    places = [hostile / split / "cat" / f"a{suffix}" for split in ("train", "test")]
    for file in places:
        file.parent.mkdir(parents=True, exist_ok=True)
        for older in file.parent.iterdir():
            older.unlink()
        file.write_bytes(content[: int(share * len(content))])
    found = outcome(ImageFolder(hostile, 8).read, "train")
    if isinstance(found, UserError):
        assert f"1 of 1 images (seen from {hostile}) cannot be read: train/cat/a{suffix}" in found.what
    else:
        assert found.images.shape == (1, 3, 8, 8)
