"""Runs on a user's own images: the packed images are found by their digest."""

import shutil

import pytest
from omegaconf import OmegaConf

from amtml_pl import load_run
from amtml_pl.errors import UserError
from amtml_pl.evaluate import main
from amtml_pl.results.images import packed_with, recorded_images
from archives import write_image_folder
from sealing import seal_again


@pytest.fixture
def own_images(run, shared, tmp_path, monkeypatch):
    """Train on images in a relative folder, then change the working directory."""
    home = shared / "own_images"
    if not home.exists():
        write_image_folder(home / "photos", per_class={"train": 8, "test": 2})
        monkeypatch.chdir(home)
        _, folder = run(
            "dataset=image_folder", "dataset.source.folder=photos", "dataset.num_classes=3",
            "student=resnet8_thin", "trainer=cpu", "trainer.max_epochs=1", "data.val_size=6",
            "data.batch_size=9", "paths.data=data", "logger=[]",
        )  # fmt: skip
        shutil.copytree(folder.path, home / "run")
    shutil.copytree(home, tmp_path / "home")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = OmegaConf.load(tmp_path / "home" / "run" / "config.yaml")
    assert config.dataset.source.folder == str(home / "photos")
    config.dataset.source.folder = "photos"  # as before it was recorded, or as another source has it
    config.paths.data = str(tmp_path / "home" / "data")
    OmegaConf.save(config, tmp_path / "home" / "run" / "config.yaml")
    seal_again(tmp_path / "home" / "run")
    return tmp_path / "home"


def test_packed_images_suffice_without_the_source(own_images, command):
    command(main, f"run={own_images}/run", "split=val", "teachers=false")
    assert len(load_run(own_images / "run").split("val")) == 6


def test_damaged_packed_data_sets_are_skipped(own_images):
    root = own_images / "data" / "packed"
    [whole] = root.glob("*/manifest.json")
    digest = load_run(own_images / "run").record.dataset.digest
    shutil.copytree(whole.parent, root / "a-damaged-copy")
    (root / "a-damaged-copy" / "train.images.npy").write_bytes(b"")
    (root / "another").mkdir()
    (root / "another" / "manifest.json").write_text("[]")
    shutil.copytree(whole.parent, root / "a-half.tmp")
    assert packed_with(digest, root).folder == whole.parent
    assert packed_with("0" * 64, root) is None


def test_missing_images_are_packed_again_from_a_named_folder(own_images, command, tmp_path):
    shutil.rmtree(own_images / "data")
    (own_images / "photos").rename(tmp_path / "moved_photos")
    words = (f"run={own_images}/run", "split=val", "teachers=false", f"paths.data={tmp_path}/new")
    printed = command(main, *words, status=2)
    assert f"are not in {tmp_path}/new/packed" in printed
    assert f"run={own_images}/run paths.data={tmp_path}/new dataset=image_folder" in printed
    command(main, *words, "dataset=image_folder", f"dataset.source.folder={tmp_path}/moved_photos")
    assert (own_images / "run" / "evaluate-val-student.json").is_file()


def test_nothing_is_packed_or_written_for_a_run_folder_alone(own_images, command, tmp_path):
    """Only a typed source is read, and never packed below a recorded root."""
    shutil.rmtree(own_images / "data")
    with pytest.raises(UserError, match=r"are not in .*home/data/packed"):
        load_run(own_images / "run").split("test")
    assert not (own_images / "data").exists()
    typed = ("dataset=image_folder", f"dataset.source.folder={own_images}/photos")
    command(main, f"run={own_images}/run", "split=val", "teachers=false", *typed)
    assert not (own_images / "data").exists()
    assert [*(tmp_path / "elsewhere" / "data" / "packed").iterdir()]


@pytest.mark.parametrize("name", ["x'; touch canary; '", "../digits", "image_folder"])
def test_the_command_in_the_message_contains_no_recorded_name(own_images, name):
    shutil.rmtree(own_images / "data")
    record = load_run(own_images / "run").record
    record = record.replaced(dataset=record.dataset.replaced(name=name, digest="0" * 64))
    with pytest.raises(UserError) as raised:
        recorded_images(own_images / "run", record, own_images / "data")
    assert raised.value.fix.endswith("dataset=image_folder dataset.source.folder=FOLDER")
    assert name == "image_folder" or name not in raised.value.fix
