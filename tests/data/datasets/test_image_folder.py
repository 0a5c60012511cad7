import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from amtml_pl.data.datasets import image_folder
from amtml_pl.data.datasets.image_folder import ImageFolder
from amtml_pl.data.packing import pack
from amtml_pl.errors import UserError
from archives import class_image, write_image_folder


def test_images_of_the_right_size_keep_their_pixels_in_the_order_of_names(tmp_path):
    write_image_folder(tmp_path)
    split = ImageFolder(tmp_path, 32).read("train")
    files = [f for name in ("cat", "dog", "owl") for f in sorted((tmp_path / "train" / name).iterdir())]
    naive = np.stack([np.asarray(Image.open(file)).transpose(2, 0, 1) for file in files])
    assert np.array_equal(split.images.numpy(), naive)
    assert split.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert split.classes == ("cat", "dog", "owl")


def test_order_and_pixels_do_not_depend_on_how_the_work_is_shared(tmp_path, monkeypatch):
    write_image_folder(tmp_path, per_class={"train": 30, "test": 1})
    whole = ImageFolder(tmp_path, 32).read("train")
    monkeypatch.setattr(image_folder, "CHUNK_IMAGES", 2)
    monkeypatch.setattr(image_folder, "MEMORY_BYTES", 0)
    assert torch.equal(ImageFolder(tmp_path, 32).read("train").images, whole.images)


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".jpeg", ".bmp", ".webp", ".ppm"])
def test_every_known_format_is_read(tmp_path, suffix):
    write_image_folder(tmp_path, suffix=suffix)
    split = ImageFolder(tmp_path, 32).read("test")
    hue = torch.tensor([[204, 41, 41], [41, 204, 41], [41, 41, 204]])
    assert (split.images.float().mean((2, 3)) - hue[split.labels]).abs().max() < 12


@settings(max_examples=15)
@given(width=st.integers(8, 90), height=st.integers(8, 90), size=st.integers(8, 48))
def test_other_sizes_are_scaled_and_centre_cropped_as_torchvision_does(width, height, size):
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, np.full_like(x, 99.0)], -1).astype(np.uint8)
    ours = image_folder._pixels(_png(smooth), size)
    naive = v2.Compose([v2.Resize(size, antialias=True), v2.CenterCrop(size)])(Image.fromarray(smooth))
    one_pixel = 255 / min(width, height) + 255 / size  # torchvision rounds the crop to whole pixels
    assert ours.shape == (size, size, 3)
    assert np.abs(ours.astype(int) - np.asarray(naive).astype(int)).max() <= one_pixel + 2


def test_grey_palette_and_transparent_images_become_colour(tmp_path):
    write_image_folder(tmp_path)
    colour = class_image(np.random.default_rng(0), 0, 3, (32, 32))
    for i, mode in enumerate(("L", "P", "RGBA", "1")):
        colour.convert(mode).save(tmp_path / "train" / "cat" / f"{i:04d}.png")
    assert ImageFolder(tmp_path, 32).read("train").images.shape == (12, 3, 32, 32)


def test_splits_may_have_other_folders_a_validation_split_or_no_training_split(tmp_path):
    write_image_folder(tmp_path, per_class={"a/learn": 2, "check": 1, "exam": 1})
    source = ImageFolder(tmp_path, 32, splits={"train": "a/learn", "test": "exam", "val": "check"})
    assert source.splits == ("train", "val", "test")
    assert [len(source.read(split)) for split in source.splits] == [6, 3, 3]
    only_test = ImageFolder(tmp_path, 32, splits={"train": None, "test": "exam"})
    assert only_test.missing() is None
    assert [*pack(only_test, tmp_path / "packed").splits] == ["test"]


DEBRIS = ("__MACOSX", ".ipynb_checkpoints", "@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__macosx")


def test_files_and_folders_of_an_archiver_or_a_server_are_neither_class_nor_image(tmp_path):
    write_image_folder(tmp_path)
    cats = tmp_path / "train" / "cat"
    for name in DEBRIS:
        for place in (tmp_path / "train", cats):
            (place / name).mkdir()
            (place / name / "0000.png").write_bytes(b"no image")
    for file in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0000.png"):
        (cats / file).write_bytes(b"no image")
    (cats / "kittens").mkdir()
    (cats / "0000.png").rename(cats / "kittens" / "z.png")  # deeper folders belong to their class
    split = ImageFolder(tmp_path, 32).read("train")
    assert (split.classes, split.left_out) == (("cat", "dog", "owl"), {})
    assert split.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_files_of_a_kind_that_is_not_read_are_counted_by_suffix_and_printed_after_packing(tmp_path, caplog):
    write_image_folder(tmp_path / "raw")
    for number, kind in enumerate((".tif", ".TIF", ".gif", ".avif", ".heic", "")):
        (tmp_path / "raw" / "train" / "cat" / f"other{number}{kind}").write_bytes(b"II*")
    (tmp_path / "raw" / "test" / "dog" / "other.tif").write_bytes(b"II*")
    source = ImageFolder(tmp_path / "raw", 32)
    assert source.read("train").left_out == {".tif": 2, ".gif": 1, ".avif": 1, ".heic": 1, "": 1}
    packed = pack(source, tmp_path / "packed")
    assert packed.left_out == {".tif": 3, ".gif": 1, ".avif": 1, ".heic": 1, "": 1}
    summary = "ignored 7 files of an unsupported type (.tif 3, without a suffix 1, .avif 1, .gif 1, .heic 1)"
    assert [record.getMessage() for record in caplog.records] == [f"Packed {packed.folder.name}; {summary}"]


def test_unreadable_images_are_counted_and_named(tmp_path):
    write_image_folder(tmp_path, per_class={"train": 8, "test": 1})
    for i in range(7):
        (tmp_path / "train" / "dog" / f"{i:04d}.png").write_bytes(b"this is no image")
    half = (tmp_path / "train" / "cat" / "0000.png").read_bytes()[:700]
    (tmp_path / "train" / "cat" / "0000.png").write_bytes(half)
    Image.fromarray(np.full((32, 32), 40000, np.uint16)).save(tmp_path / "train" / "cat" / "0001.png")
    with pytest.raises(UserError, match=r"9 of 24 images cannot be read .relative to") as error:
        ImageFolder(tmp_path, 32).read("train")
    assert "train/cat/0000.png (" in str(error.value)
    assert "train/cat/0001.png (mode I;16, expected 8 bits per channel)" in str(error.value)
    assert "train/dog/0000.png (unknown format, expected PNG, JPEG, BMP, WEBP, PPM)" in str(error.value)
    assert "dog/0004.png" not in str(error.value)


@pytest.mark.parametrize(
    ("splits", "message"),
    [(["train"], r"The test split in .* lacks classes of another split: wolf"),
     (["train", "test"], r"train/wolf has no images.*ignored 1 file of an unsupported type \(\.tif 1\)")],
)  # fmt: skip
def test_a_class_without_images_or_in_one_split_alone_is_named(tmp_path, splits, message):
    write_image_folder(tmp_path)
    for split in splits:
        (tmp_path / split / "wolf").mkdir()
        (tmp_path / split / "wolf" / "0.tif").touch()
    with pytest.raises(UserError, match=message):
        ImageFolder(tmp_path, 32).read("train")


def test_images_without_class_folders_are_refused(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / split / "0.png")
    with pytest.raises(UserError, match=r"train has no subfolder"):
        ImageFolder(tmp_path, 32).read("train")


def test_a_missing_split_folder_is_named_with_its_override(tmp_path):
    write_image_folder(tmp_path, per_class={"train": 1})
    source = ImageFolder(tmp_path, 32)
    assert str(tmp_path / "test") in source.missing()
    assert source.signature() is None
    with pytest.raises(UserError, match=r"lacks .*test \(split test\)(.|\n)*dataset.source.splits="):
        source.fetch()


@pytest.mark.parametrize(
    "splits",
    [{"train": "a"}, {"train": "a", "test": None}, {"test": "b", "train": "a", "val": None},
     {"test": "b", "train": "a", "exam": "c"}, {"train": "all", "test": "all"}],
)  # fmt: skip
def test_splits_other_than_train_val_and_test_or_of_one_folder_are_refused(tmp_path, splits):
    with pytest.raises(UserError, match=r"has wrong splits|have the same subfolder"):
        ImageFolder(tmp_path, 32, splits=splits)


def test_the_signature_follows_every_file(tmp_path):
    write_image_folder(tmp_path)
    source = ImageFolder(tmp_path, 32)
    before = source.signature()
    assert source.signature() == before
    (tmp_path / "test" / "owl" / "0001.png").unlink()
    assert source.signature() != before


def test_the_identity_depends_on_the_folder_and_not_on_its_spelling(tmp_path):
    identity = ImageFolder(tmp_path / "a", 32).identity()
    assert identity == ImageFolder(str(tmp_path / "b" / ".." / "a"), 32).identity()
    assert identity != ImageFolder(tmp_path / "b", 32).identity()


def _png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return io.BytesIO(buffer.getvalue())
