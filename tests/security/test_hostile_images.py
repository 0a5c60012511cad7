"""Damaged or malicious image files are named, and no other image is lost."""

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

from amtml_pl.data.datasets.image_folder import ImageFolder
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from archives import encoded, write_image_folder

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
CONTENT = {kind: encoded(PICTURE, kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "PPM", "GIF")}


def png_that_claims(width, height):
    """Return the start of a PNG file whose header claims a size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.fixture
def folder(hostile):
    return write_image_folder(hostile, classes=("cat", "dog"))


@pytest.mark.parametrize("side", [12_000, 2**31 - 1])
def test_a_picture_with_too_many_pixels_is_rejected_before_it_is_unpacked(folder, out, side):
    content = png_that_claims(side, side) + CONTENT["PNG"][33:]
    (folder / "train" / "cat" / "0000.png").write_bytes(content)
    message = r"(?s)1 of 8 images cannot be read .*: train/cat/0000.png \(.*pixels"
    with at_most(megabytes=30), pytest.raises(UserError, match=message):
        pack(ImageFolder(folder, 32), out)


def test_a_program_with_the_name_of_a_picture_is_not_started(folder, out, canary):
    program = (
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n({canary}) (w) file closefile\n"
    )
    (folder / "train" / "cat" / "0000.png").write_text(program)
    assert Image.open(io.BytesIO(program.encode())).format == "EPS"  # Pillow itself would open it
    with pytest.raises(UserError, match=r"train/cat/0000.png \(unknown format, expected PNG, JPEG, "):
        pack(ImageFolder(folder, 32), out)


def test_a_link_to_a_folder_above_it_is_rejected(folder, out):
    (folder / "train/cat/again").symlink_to(folder / "train", target_is_directory=True)
    with pytest.raises(UserError, match="again is a link to a folder that contains the link"):
        pack(ImageFolder(folder, 32), out)


@FUZZ
@given(
    kind=st.sampled_from(sorted(CONTENT)), bits=st.lists(st.integers(0, 2**20), max_size=6),
    share=st.floats(0.1, 1),
)  # fmt: skip
def test_damaged_pictures_are_read_or_named(hostile, kind, bits, share):
    content = CONTENT[kind]
    for bit in bits:
        content = flipped(content, bit)
    for split in ("train", "test"):
        file = hostile / split / "cat" / "a.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content[: int(share * len(content))])
    found = outcome(ImageFolder(hostile, 8).read, "train")
    if isinstance(found, UserError):
        assert f"1 of 1 images cannot be read (relative to {hostile}): train/cat/a.png" in found.what
    else:
        assert found.images.shape == (1, 3, 8, 8)
