"""The command ``python -m amtml_pl.cache``: what it prints, builds, keeps and removes."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from amtml_pl import cache, train
from amtml_pl.teachers.cache.upkeep import show_info
from amtml_pl.teachers.selected import SelectedTeacher
from tiny_runs import TINY

EXPERIMENT = ("experiment=digits_amtml", *TINY)


def invoke(main, place, shared, *words):
    """Run a command in this process, and return its exit status."""
    roots = {"data": shared / "data", "teachers": shared / "teachers", "outputs": place / "outputs"}
    typed = [f"paths.{name}={folder}" for name, folder in roots.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["command", *typed, *words])
        try:
            main()
        except SystemExit as stop:
            return stop.code
    return 0


@pytest.fixture(scope="module")
def built(tmp_path_factory, shared):
    """Return the cache that action=build makes for the experiment, validation included."""
    place = tmp_path_factory.mktemp("built")
    status = invoke(cache.main, place, shared, "action=build", *EXPERIMENT, "splits=[train,val]")
    assert status == 0
    return place / "outputs" / "cache"


@pytest.fixture
def root(built, tmp_path):
    """Return a copy of the cache without records of use."""
    ignore = shutil.ignore_patterns("used_by")
    return Path(shutil.copytree(built, tmp_path / "outputs" / "cache", ignore=ignore)) / "digits"


@pytest.fixture
def command(tmp_path, shared, capfd):
    """Return a function that runs a command, and returns what it prints."""

    def call(*words, status=0, main=cache.main):
        capfd.readouterr()
        assert invoke(main, tmp_path, shared, *words) == status
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert err.count("error:") == (status == 2)
        return out + err

    return call


def files(root):
    """Return every file of the stores with its content."""
    aside = {".locks", "used_by"}
    found = sorted(file for file in root.rglob("*") if file.is_file() and not aside & set(file.parts))
    return {str(file.relative_to(root)): file.read_bytes() for file in found}


def stores(root):
    return sorted(manifest.parent for manifest in root.rglob("manifest.json"))


def store(root, kind):
    (folder,) = root.glob(kind)
    return folder


def flip_a_byte(root):
    file = store(root, "resnet8/layer3-train-*") / "view-0002.00000.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return file


def use(folder, run, command="the command"):
    (folder / "used_by").mkdir(exist_ok=True)
    user = {"run": str(run), "command": command}
    (folder / "used_by" / "0123456789ab.json").write_text(json.dumps(user))


# ---- action=build


def test_a_run_after_a_build_asks_no_teacher(root, command, tmp_path, monkeypatch):
    fresh = SelectedTeacher.fresh

    def refuse(self):
        if torch.get_default_device().type != "meta":  # there it has no numbers, and is looked at only
            raise AssertionError(f"teacher {self.name} was made")
        return fresh(self)

    monkeypatch.setattr(SelectedTeacher, "fresh", refuse)
    command(*EXPERIMENT, "hydra.run.dir=run", main=train.main)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["cache"]["teacher_passes"] == {}
    assert "run" in command("action=info")


def test_a_second_build_finds_all_there_even_from_a_run_folder(root, command, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"format": 0, "dataset": {"digest": "another"}}))
    before = files(root)
    output = command("action=build", *EXPERIMENT)
    assert re.search(r"train: 2 views of 2 teachers, .* all there already", output)
    assert files(root) == before


@pytest.mark.slow
def test_validation_logits_serve_every_augmentation_and_number_of_views(root, command):
    val = sorted(folder.name for folder in root.glob("*/logits-val-*"))
    assert len(val) == 2
    assert not list(root.glob("*/layer3-val-*"))
    output = command("action=build", *EXPERIMENT, "splits=[val]", "augment=none", "data.views=1")
    assert "val: 1 view of 2 teachers" in output
    assert "all there already" in output
    assert sorted(folder.name for folder in root.glob("*/logits-val-*")) == val
    manifest = json.loads((store(root, "resnet8/logits-val-*") / "manifest.json").read_text())
    assert manifest["fingerprint"]["augment"] is None


# ---- action=info


def test_an_empty_cache_says_so(command, tmp_path):
    assert f"Nothing is cached in {tmp_path / 'outputs' / 'cache'}." in command("action=info")


def test_every_store_is_listed_with_its_size_accuracy_fingerprint_and_users(root, command, tmp_path):
    use(store(root, "resnet8/logits-train-*"), tmp_path)
    output = command("action=info")
    for folder in stores(root):
        assert folder.name[-12:] in output
    assert "6 stores" in output
    assert re.search(r"\b[\d.]+ [kM]B", output)
    assert re.search(r"0\.\d{4}", output)
    for part in ("split: name train, size 100", "storage: float16", "precision float32", "padding 4"):
        assert part in output
    assert str(tmp_path) in output
    assert "no run" in output
    assert "damaged" not in output


def listed(root, capfd):
    """Return the list that action=info prints."""
    show_info(root.parent)
    return capfd.readouterr().out


DAMAGES = {
    "an empty manifest": ("manifest.json", b"{}", "has format None"),
    "a truncated shard": ("view-0001.00000.safetensors", b"", r"views \[1\] lack bytes"),
    "a record that is no JSON": ("view-0002.json", b"{", "is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_listed_as_damaged(root, capfd, damage):
    name, content, words = DAMAGES[damage]
    (store(root, "resnet8/logits-train-*") / name).write_bytes(content)
    output = re.sub(r"[\s│|]+", " ", listed(root, capfd))
    assert len(re.findall(r"(?<!is )damaged: ", output)) == 1
    assert re.search("damaged: .*" + words, output)


# ---- action=verify


def test_a_right_cache_passes_with_the_largest_differences_per_tensor(root, command):
    before = files(root)
    output = command("action=verify", *EXPERIMENT, "rows=16", "splits=[train,val]")
    assert "train: 2 views, every checksum right" in output
    assert "val: 1 view, every" in output
    for tensor in ("resnet8.*logits.*always", "resnet8.*layer3", "vgg8_quarter.*stage5"):
        assert re.search(rf"{tensor}.*", output)
    differences = re.findall(r"\d\.\de[+-]\d\d", output)
    assert len(differences) > 2
    assert all(float(found) < 1e-3 for found in differences)
    assert files(root) == before


def test_a_flipped_byte_fails_and_is_left_as_it_is(root, command):
    damaged, before = flip_a_byte(root), files(root)
    output = command("action=verify", *EXPERIMENT, status=2)
    assert f"checksum of {damaged} is wrong" in output
    assert files(root) == before


def test_a_teacher_that_answers_otherwise_fails(root, command, monkeypatch):
    load = SelectedTeacher.load

    def other(self):
        teacher = load(self)
        with torch.no_grad():
            list(teacher.network.parameters())[-1].add_(torch.arange(10.0))
        return teacher

    monkeypatch.setattr(SelectedTeacher, "load", other)
    output = command("action=verify", *EXPERIMENT, "rows=4", status=2)
    assert re.search(r"Teacher '\w+' gives other logits for sample \d+ of train in view 1", output)


def test_views_that_are_not_built_are_counted_and_not_built(root, command):
    store(root, "resnet8/logits-train-*").joinpath("view-0002.json").unlink()
    before = files(root)
    assert "train: 1 view of 2, every checksum right" in command("action=verify", *EXPERIMENT, "rows=4")
    assert files(root) == before


@pytest.mark.parametrize("action", ["verify", "info", "gc"])
def test_without_images_and_teachers_nothing_is_made(command, tmp_path, action):
    elsewhere = [f"paths.data={tmp_path}/data", f"paths.teachers={tmp_path}/teachers"]
    output = command(f"action={action}", *EXPERIMENT, *elsewhere, status=2 if action == "verify" else 0)
    if action == "verify":
        assert "packed images do not exist" in output
        assert "action=build" in output
    assert list(tmp_path.iterdir()) == []


# ---- action=gc


def test_stores_without_a_run_and_an_experiment_are_listed_and_removed(root, command):
    names = [folder.name for folder in stores(root)]
    output = command("action=gc")
    assert all(name in output for name in names)
    assert "freed" in output
    assert list(root.parent.rglob("*.safetensors")) == []
    assert "Nothing to remove" in command("action=gc")


def test_the_stores_of_existing_runs_stay(root, command, tmp_path):
    used, gone = store(root, "resnet8/logits-train-*"), store(root, "vgg8_quarter/logits-train-*")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    use(used, tmp_path / "run")
    use(gone, tmp_path / "removed run")
    before = files(used)
    command("action=gc")
    assert files(used) == before
    assert not gone.exists()


@pytest.mark.slow
def test_the_stores_of_the_experiment_of_the_command_stay_validation_included(root, command):
    command("action=build", *EXPERIMENT, "cache.logits=float32")
    other = [folder for folder in root.glob("*/logits-*") if '"float32"' in storage(folder)]
    kept = [folder for folder in stores(root) if folder not in other]
    command("action=gc", *EXPERIMENT)
    assert len(other) == 4  # of both teachers: training, and the validation that the weighting learns from
    assert not any(folder.exists() for folder in other)
    assert len(kept) == 6
    assert all(folder.exists() for folder in kept)


def storage(folder):
    return json.dumps(json.loads((folder / "manifest.json").read_text())["storage"])


@pytest.mark.slow
def test_the_other_teachers_of_an_experiment_keep_their_stores_when_one_has_no_weights(root, command):
    command("action=gc", *EXPERIMENT, "teacher=[resnet8,vgg8_quarter,wrn_10_1]")
    assert len(stores(root)) == 6


def test_leftovers_of_a_killed_build_go_and_whole_stores_stay(root, command):
    before, folder = files(root), store(root, "resnet8/layer3-train-*")
    (folder / ".view-0003.00000.safetensors").write_bytes(b"half")
    (folder / ".view-0003.json").write_text("{")
    assert list((root / ".locks").iterdir())
    assert "8 bytes" not in command("action=gc", *EXPERIMENT)
    assert files(root) == before
    assert not (root / ".locks").exists()


def test_a_store_that_another_process_builds_is_left_alone(root, command):
    folder = store(root, "resnet8/layer3-train-*")
    half = folder / ".view-0003.00000.safetensors"
    half.write_bytes(b"half")
    with FileLock(root / ".locks" / f"resnet8-{folder.name}-3.lock"):
        command("action=gc")
    assert half.exists()
    assert [f.name for f in stores(root)] == [folder.name]


def test_a_store_built_ahead_stays_until_its_experiment_does_not_read_it(root, command):
    before = files(root)
    for folder in stores(root):
        use(folder, "")
    command("action=gc")
    assert files(root) == before
    use(store(root, "vgg8_quarter/logits-train-*"), "", "amtml-cache action=build experiment=digits_amtml")
    command("action=gc", *EXPERIMENT, "cache.logits=float32")
    assert not list(root.glob("vgg8_quarter/logits-train-*"))
    assert list(root.glob("resnet8/logits-train-*"))


# ---- mistakes


MISTAKES = {
    "another action": (("action=clean",), "build, verify, info or gc"),
    "no split": (("action=build", "splits=[]"), "a list of train, val, test"),
    "no rows": (("action=verify", "rows=0"), "1 or more"),
    "live teachers": (("action=build", *EXPERIMENT, "teacher_source=live"), "teacher_source=cached"),
    "no teachers": (("action=build", "experiment=digits", "method=ce"), "no teachers to cache"),
    "a value of another type": (("action=build", "cache.batch_size=many"), "cache.batch_size"),
    "an unknown key": (("action=build", "cache.colour=red"), "colour"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_status_2(command, tmp_path, mistake):
    words, expected = MISTAKES[mistake]
    assert expected in command(*words, status=2)
    assert list(tmp_path.iterdir()) == []
