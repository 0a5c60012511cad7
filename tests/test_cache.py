"""The command ``python -m amtml_pl.cache``: its output, and the files that it makes, keeps and removes."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from amtml_pl import cache
from amtml_pl.errors import UserError
from amtml_pl.teachers.cache.upkeep import show_info
from amtml_pl.training.cache_actions import CacheCommand, act
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.settings import settings_of
from tiny_runs import TINY

pytestmark = pytest.mark.slow

EXPERIMENT = ("experiment=digits_amtml", *TINY)


def invoke(main, place, shared, *words):
    """Return the exit status of a command that runs in this process, which saves its imports."""
    roots = {"data": shared / "data", "teachers": shared / "teachers", "outputs": place / "outputs"}
    paths = [f"paths.{name}={folder}" for name, folder in roots.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["command", *paths, *words])
        try:
            main()
        except SystemExit as stop:
            return stop.code
    return 0


@pytest.fixture(scope="module")
def built(tmp_path_factory, shared):
    """The cache that action=build makes for the experiment, validation included."""
    place = tmp_path_factory.mktemp("built")
    assert invoke(cache.main, place, shared, "action=build", *EXPERIMENT, "splits=[train,val]") == 0
    return place / "outputs" / "cache"


@pytest.fixture
def root(built, tmp_path):
    """A copy of the cache for each test, without notes of its users."""
    ignore = shutil.ignore_patterns("used_by")
    return Path(shutil.copytree(built, tmp_path / "outputs" / "cache", ignore=ignore)) / "digits"


@pytest.fixture
def output(configure, capfd):
    """Run an action on the configuration of some overrides, and return its output."""

    def call(action, *overrides, rows=4, splits=("train",)):
        experiment = "digits_amtml" if overrides else None
        capfd.readouterr()
        act(settings_of(configure(*overrides)), CacheCommand(experiment, overrides), action, [*splits], rows)
        return capfd.readouterr().out

    return call


def files(root):
    """Return every file's content by name, without locks and notes of users."""
    aside = {".locks", "used_by"}
    found = sorted(file for file in root.rglob("*") if file.is_file() and not aside & set(file.parts))
    return {str(file.relative_to(root)): file.read_bytes() for file in found}


def stores(root):
    return sorted(manifest.parent for manifest in root.rglob("manifest.json"))


def store(root, kind):
    (folder,) = root.glob(kind)
    return folder


def use(folder, run, command="the command"):
    (folder / "used_by").mkdir(exist_ok=True)
    user = {"run": str(run), "command": command}
    (folder / "used_by" / "0123456789ab.json").write_text(json.dumps(user))


# ---- action=build


def test_a_run_after_a_build_computes_no_teacher(root, run, capfd, monkeypatch):
    fresh = SelectedTeacher.fresh

    def refuse(self):
        assert torch.get_default_device().type == "meta", f"teacher {self.name} was made"  # without numbers
        return fresh(self)

    monkeypatch.setattr(SelectedTeacher, "fresh", refuse)
    record, folder = run(*EXPERIMENT)
    assert record.cache.teacher_passes == {}
    capfd.readouterr()
    show_info(root.parent)
    assert folder.path.name in capfd.readouterr().out


def test_validation_logits_serve_every_augmentation_and_number_of_views(root, output):
    val = sorted(folder.name for folder in root.glob("*/logits-val-*"))
    assert len(val) == 2
    assert not list(root.glob("*/layer2*-val-*"))
    printed = output("build", *EXPERIMENT, "augment=none", "data.views=1", splits=["val"])
    assert re.search("val: 1 view of 2 teachers.*all were cached before", printed)
    assert sorted(folder.name for folder in root.glob("*/logits-val-*")) == val
    manifest = json.loads((store(root, "resnet8/logits-val-*") / "manifest.json").read_text())
    assert manifest["fingerprint"]["augment"] is None


# ---- action=info


def test_a_build_of_validation_outputs_needs_no_space_for_training_ones(
    output, shared, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=40_000))
    own = (f"paths.teachers={tmp_path}/teachers", f"paths.cache={tmp_path}/cache")
    assert "val: 1 view of 2 teachers" in output("build", *EXPERIMENT, *own, splits=["val"])
    with pytest.raises(UserError, match="too little space"):
        output("build", *EXPERIMENT, *own, "data.seed=5", splits=["train"])


def test_an_empty_cache_is_reported(shared, tmp_path, capfd):
    assert invoke(cache.main, tmp_path, shared, "action=info") == 0
    assert (
        f"The cache folder {tmp_path / 'outputs' / 'cache'} has no teacher outputs." in capfd.readouterr().out
    )


def test_every_store_is_listed_with_its_size_accuracy_fingerprint_and_users(root, output, tmp_path):
    use(store(root, "resnet8/logits-train-*"), tmp_path)
    listed = output("info")
    for folder in stores(root):
        assert folder.name[-12:] in listed
    assert re.search(r"\b[\d.]+ [kM]B", listed)
    assert re.search(r"0\.\d{4}", listed)
    for part in (
        "6 folders", "split: name train, size 100", "storage: float16", "precision float32", "padding 4",
        str(tmp_path), "no run",
    ):  # fmt: skip
        assert part in listed
    assert "damaged" not in listed


DAMAGES = {
    "an empty manifest": ("manifest.json", b"{}", "has format None"),
    "a truncated shard": ("view-0001.00000.safetensors", b"", r"views \[1\] have missing"),
    "a record that is not JSON": ("view-0002.json", b"{", "is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_listed_as_damaged(root, capfd, damage):
    name, content, words = DAMAGES[damage]
    (store(root, "resnet8/logits-train-*") / name).write_bytes(content)
    show_info(root.parent)
    listed = re.sub(r"[\s│|]+", " ", capfd.readouterr().out)
    assert len(re.findall(r"(?<!is )damaged: ", listed)) == 1
    assert re.search("damaged: .*" + words, listed)


# ---- action=verify


def test_a_correct_cache_passes_with_the_largest_difference_of_each_tensor(root, output):
    before = files(root)
    printed = output("verify", *EXPERIMENT, rows=16, splits=["train", "val"])
    assert "train: 2 views: all checksums are right" in printed
    assert "val: 1 view: all checksums" in printed
    for tensor in ("resnet8.*logits.*always", "resnet8.*layer2@8", "vgg8_quarter.*stage3@8"):
        assert re.search(tensor, printed)
    largest = re.findall(r"\d\.\de[+-]\d\d", printed)
    assert len(largest) > 2
    assert all(float(found) < 1e-3 for found in largest)
    assert files(root) == before


def test_a_flipped_byte_fails_and_is_left_as_it_is(root, output):
    damaged = store(root, "resnet8/layer2*-train-*") / "view-0002.00000.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=f"checksum of {damaged} is wrong"):
        output("verify", *EXPERIMENT)
    assert damaged.read_bytes() == content


def test_missing_views_are_counted_and_not_built(root, output):
    store(root, "resnet8/logits-train-*").joinpath("view-0002.json").unlink()
    before = files(root)
    assert "train: 1 view of 2: all checksums are right" in output("verify", *EXPERIMENT)
    assert files(root) == before


@pytest.mark.parametrize(
    ("lacking", "message"), [("data", "packed images do not exist"), ("teachers", "weights of.*vgg8_quarter")]
)
@pytest.mark.usefixtures("built")
def test_without_images_or_teachers_nothing_is_verified_and_nothing_made(output, tmp_path, lacking, message):
    with pytest.raises(UserError, match=rf"(?s){message}.*action=build"):
        output("verify", *EXPERIMENT, f"paths.{lacking}={tmp_path}/{lacking}")
    output("gc", *EXPERIMENT, f"paths.{lacking}={tmp_path}/{lacking}")
    assert list(tmp_path.iterdir()) == []


# ---- action=gc


def test_stores_without_a_run_and_an_experiment_are_listed_and_removed(root, output):
    names = [folder.name for folder in stores(root)]
    printed = output("gc")
    assert all(name in printed for name in names)
    assert "freed" in printed
    assert list(root.parent.rglob("*.safetensors")) == []
    assert "Nothing to remove" in output("gc")


def test_the_stores_of_existing_runs_stay(root, output, tmp_path):
    used, gone = store(root, "resnet8/logits-train-*"), store(root, "vgg8_quarter/logits-train-*")
    (tmp_path / "run").mkdir()
    use(used, tmp_path / "run")
    use(gone, tmp_path / "removed run")
    before = files(used)
    output("gc")
    assert files(used) == before
    assert not gone.exists()


def test_the_stores_of_the_experiment_of_the_command_stay_validation_included(root, output):
    output("build", *EXPERIMENT, "cache.logits=float32")
    other = [
        f for f in root.glob("*/logits-*") if '"storage": "float32"' in (f / "manifest.json").read_text()
    ]
    kept = [folder for folder in stores(root) if folder not in other]
    output("gc", *EXPERIMENT)
    assert len(other) == 4  # of both teachers: training, and the validation that the weighting learns from
    assert not any(folder.exists() for folder in other)
    assert len(kept) == 6
    assert all(folder.exists() for folder in kept)


def test_the_cached_stores_of_an_experiment_stay_when_it_now_runs_live_teachers(root, output):
    output("gc", *EXPERIMENT, "teacher_source=live")
    assert len(stores(root)) == 6


def test_the_other_teachers_of_an_experiment_keep_their_stores_when_one_has_no_weights(root, output):
    output("gc", *EXPERIMENT, "teacher=[resnet8,vgg8_quarter,wrn_10_1]")
    assert len(stores(root)) == 6


def test_leftovers_of_a_killed_build_are_removed_and_complete_stores_stay(root, output):
    before, folder = files(root), store(root, "resnet8/layer2*-train-*")
    (folder / ".view-0003.00000.safetensors").write_bytes(b"half")
    (folder / ".view-0003.json").write_text("{")
    assert list((root / ".locks").iterdir())
    output("gc", *EXPERIMENT)
    assert files(root) == before
    assert not (root / ".locks").exists()


def test_a_store_that_another_process_builds_is_left_alone(root, output):
    folder = store(root, "resnet8/layer2*-train-*")
    half = folder / ".view-0003.00000.safetensors"
    half.write_bytes(b"half")
    with FileLock(root / ".locks" / f"resnet8-{folder.name}-3.lock"):
        output("gc")
    assert half.exists()
    assert [f.name for f in stores(root)] == [folder.name]


def test_a_store_built_ahead_stays_until_its_experiment_does_not_read_it(root, output):
    before = files(root)
    for folder in stores(root):
        use(folder, "")
    output("gc")
    assert files(root) == before
    use(store(root, "vgg8_quarter/logits-train-*"), "", "amtml-cache action=build experiment=digits_amtml")
    output("gc", *EXPERIMENT, "cache.logits=float32")
    assert not list(root.glob("vgg8_quarter/logits-train-*"))
    assert list(root.glob("resnet8/logits-train-*"))


# ---- mistakes


@pytest.mark.parametrize(
    ("word", "expected"), [("action=clean", "build, verify, info or gc"), ("rows=0", "1 or more")]
)
def test_a_mistake_is_one_message_and_status_2(shared, tmp_path, capfd, word, expected):
    assert invoke(cache.main, tmp_path, shared, word) == 2
    err = capfd.readouterr().err
    assert expected in err
    assert err.count("error:") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "fix"),
    [((*EXPERIMENT, "teacher_source=live"), "teacher_source=cached"),
     (("experiment=digits", "method=ce"), "experiment=digits_amtml")],
)  # fmt: skip
def test_an_experiment_without_a_cache_is_refused(output, overrides, fix):
    with pytest.raises(UserError, match=fix):
        output("build", *overrides)
