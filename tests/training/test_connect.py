"""A run with cached teacher outputs is the same as with live teachers."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from amtml_pl.data.augment import CropFlip
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.teachers.live import LiveTeachers
from amtml_pl.training.benchmark.peak_memory import parameters_beside
from amtml_pl.training.callbacks import EpochTable
from amtml_pl.training.selected_teacher import SelectedTeacher
from amtml_pl.training.trainer import make_trainer
from amtml_pl.types import Batch
from rounding import rounding, undecided
from sealing import change_record, seal_again
from tiny_runs import TINY, assert_bitwise_equal, failing, ready, weights

AMTML = ("experiment=digits_amtml", *TINY)
# Passes of the same size live and cached: some processors round a pass of few images otherwise.
ROUNDED_ALIKE = (
    *AMTML, "trainer.max_epochs=1", "data.train_size=96",
    "cache.logits=float32", "cache.hints=float32", "cache.batch_size=32",
)  # fmt: skip


@pytest.fixture
def cached(moved, shared, tmp_path):
    """Return a copy of the teachers' outputs of a finished run."""
    return shutil.copytree(shared / "outputs" / "cache", tmp_path / "outputs" / "cache")


def prepared(configure, tmp_path, *overrides):
    """A run up to its first step."""
    return ready(configure(*AMTML, *overrides), RunFolder(tmp_path / "prepared"))


def shards(cache, view=""):
    return sorted(file for file in cache.rglob("*.safetensors") if view in file.name)


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return file


def train_anew(folder):
    """Change a teacher's weights in its folder, as another training does."""
    state = load_file(folder / "student.safetensors")
    other = {name: tensor + 1 if "fc" in name else tensor for name, tensor in state.items()}
    save_file(other, folder / "student.safetensors")
    seal_again(folder)


def other_crops(monkeypatch):
    """Change the code of an augmentation, but not its settings."""
    original = CropFlip.__call__

    def other_code(self, images, keys, view):
        return original(self, images, keys, view + 1)

    monkeypatch.setattr(CropFlip, "__call__", other_code)


@pytest.mark.numbers
def test_a_cached_run_trains_the_student_of_live_teachers_to_the_bit_and_holds_no_teacher(
    configure, tmp_path
):
    """With smaller hints: others are those of live teachers, as a later test shows."""

    def fitted(source):
        job = (*ROUNDED_ALIKE, "loss.regression.grid=2", f"teacher_source={source}")
        made = ready(configure(*job), RunFolder(tmp_path / source))
        trainer = make_trainer(made, EpochTable(made.request.folder.metrics_file))
        trainer.fit(made.module, datamodule=made.data)
        held.append(parameters_beside(made.module) - others)
        return made.module.student.state_dict()

    others, held = parameters_beside(nn.Identity()), []  # of other tests
    cached = fitted("cached")
    assert_bitwise_equal(fitted("live"), cached)
    assert held[0] == 0 < held[1]


def test_an_image_passes_each_teacher_once_per_view_and_in_no_later_run(moved, cached, run, monkeypatch):
    first = RunFolder(moved).completed()
    assert first.cache.teacher_passes == {"vgg8_quarter": 2.0, "resnet8": 2.0}
    assert first.timing.cache_build_seconds > 0
    monkeypatch.setattr(SelectedTeacher, "fresh", failing(AssertionError("a teacher was built")))
    three = ("data.views=2", "trainer.max_epochs=3", "seed=1", "doctor=false")
    later, folder = run(*AMTML, *three, name="later")
    assert later.cache.teacher_passes == {}
    assert later.teachers == first.teachers
    assert folder.weights_file.exists()


@pytest.mark.numbers
def test_a_thousand_samples_meet_the_pixels_and_outputs_of_live_teachers(cached, configure, tmp_path):
    made = prepared(configure, tmp_path, "data.views=3", "trainer.max_epochs=5")
    data, live = made.data, LiveTeachers([teacher.load() for teacher in made.teachers])
    drawn, split = np.random.default_rng(0), data.split("train")
    for epoch in drawn.integers(5, size=20).tolist():
        data.teachers.provide(data.train_view(epoch))
        batches = [*data.train_batches(epoch)]
        batch = batches[drawn.integers(len(batches))]
        picked = torch.from_numpy(drawn.integers(len(batch), size=50))
        index = batch.index[picked]
        alone = data.augment(split.stored.images[split.rows[index]], index, data.train_view(epoch))
        assert torch.equal(batch.images[picked], alone)
        expected = live(Batch(alone, batch.labels[picked], index, batch.view, "train"))
        got = made.module.teacher_source(batch)
        within = rounding(9 * 128, layers=10) * float(expected.logits.abs().max())
        decided = ~undecided(expected.logits, within)
        named = [outputs.argmax(2)[decided] for outputs in (got.logits[picked], expected.logits)]
        assert torch.equal(*named)
        torch.testing.assert_close(got.logits[picked].float(), expected.logits, rtol=1e-3, atol=1e-4)
        for name, hint in expected.hints.items():
            torch.testing.assert_close(got.hints[name][picked].float(), hint, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("override", ["data.num_workers=2", "cache.placement=resident"])
def test_loader_workers_and_the_place_of_the_cache_change_nothing(moved, cached, run, override):
    _, other = run(*AMTML, override, name="other")
    assert_bitwise_equal(weights(RunFolder(moved)), weights(other))


@pytest.fixture(params=["whole views", "views that a new hint makes incomplete"])
def cached_views(request, cached):
    """The teachers' outputs, whole or without any hint."""
    stores = [*cached.glob("*/*/layer2*"), *cached.glob("*/*/stage3*")]
    assert len(stores) == 2
    for store in [] if request.param == "whole views" else stores:
        shutil.rmtree(store)
    return cached


def test_a_flipped_bit_of_any_view_is_refused_before_the_first_step(cached_views, configure, tmp_path):
    damaged = shards(cached_views, "view-0002")[-1]
    whole = damaged.read_bytes()
    flip_a_bit(damaged)
    with pytest.raises(UserError, match=rf"checksum of .*{damaged.name} is wrong"):
        prepared(configure, tmp_path, "seed=1")
    damaged.unlink()  # the fix of the message
    prepared(configure, tmp_path, "seed=1").data.teachers.provide(2)
    assert damaged.read_bytes() == whole


def test_changed_code_of_an_augmentation_is_refused(cached_views, configure, tmp_path, monkeypatch):
    other_crops(monkeypatch)
    with pytest.raises(UserError, match=r"pixels of train sample \d+ in view \d do not match"):
        prepared(configure, tmp_path, "seed=1")


def test_a_view_that_other_code_has_half_built_is_refused_when_it_is_whole(configure, tmp_path, monkeypatch):
    monkeypatch.setattr("amtml_pl.training.run_cache.SHARD_ROWS", 25)
    prepared(configure, tmp_path)
    for shard in shards(tmp_path / "outputs" / "cache", ".00003."):
        shard.unlink()
    other_crops(monkeypatch)
    with pytest.raises(UserError, match=r"pixels of train sample \d+ in view 1 do not match"):
        prepared(configure, tmp_path, "seed=1")


def test_a_view_that_another_process_has_built_meanwhile_is_verified_too(moved, shared, configure, tmp_path):
    made = prepared(configure, tmp_path)
    cache = tmp_path / "outputs" / "cache"
    shutil.copytree(shared / "outputs" / "cache", cache, dirs_exist_ok=True)
    damaged = flip_a_bit(shards(cache, "view-0002")[0])
    with pytest.raises(UserError, match=rf"checksum of .*{damaged.name} is wrong"):
        made.data.teachers.provide(2)


def test_without_preparation_a_changed_setting_is_named_with_both_values(cached, configure, tmp_path):
    expected = r"(?s)outputs: to compute.*differs in storage .got 'int8', stored 'float16'.*action=build"
    with pytest.raises(UserError, match=expected):
        prepared(configure, tmp_path, "cache.hints=int8", "prepare=false")


def test_without_preparation_a_view_that_vanishes_is_not_built(cached, configure, tmp_path):
    made = prepared(configure, tmp_path, "prepare=false")
    for shard in shards(cached, "view-0002"):
        shard.unlink()
    made.cache.trusted.clear()
    with pytest.raises(
        UserError, match=r"no teacher outputs for view 2 of the train split, and prepare=false"
    ):
        made.data.teachers.provide(2)


def test_the_record_of_a_cached_run_names_its_stores_and_the_stores_name_the_run(moved, cached, shared):
    record = RunFolder(moved).completed()
    assert record.teacher_source == "cached"
    assert record.cache.views == 2
    assert len(record.cache.stores) == 4
    for name in record.cache.stores:
        notes = (cached / "digits" / name / "used_by").iterdir()
        assert str((shared / "finished").resolve()) in [json.loads(note.read_text())["run"] for note in notes]


def test_weights_that_are_replaced_within_a_run_are_refused(cached, own_teachers, configure, tmp_path):
    made = prepared(configure, tmp_path, own_teachers)
    train_anew(made.teachers[0].folder.path)
    for shard in shards(cached, "view-0002"):
        shard.unlink()
    made.cache.trusted.clear()
    with pytest.raises(UserError, match=r"weights of teacher 'vgg8_quarter' have changed since"):
        made.data.teachers.provide(2)


def test_an_interrupted_run_is_not_resumed_with_other_teachers(moved, own_teachers, run, tmp_path):
    change_record(moved, status="interrupted")
    for folder in (tmp_path / "teachers" / "digits").glob("resnet8-*"):
        train_anew(folder)
    with pytest.raises(
        UserError, match=r"(?s)weights of teacher 'resnet8' have changed since the run.*force=true"
    ):
        run(*AMTML, own_teachers, name="moved")


def test_a_pixel_that_has_changed_in_the_packed_file_is_refused(moved, shared, configure, tmp_path):
    shutil.copytree(shared / "data", tmp_path / "data")
    for file in (tmp_path / "data" / "packed").glob("digits-*/train.images.npy"):
        flip_a_bit(file)
    with pytest.raises(UserError, match=r"manifest.json does not match the checksum of the images"):
        prepared(configure, tmp_path, f"paths.data={tmp_path}/data")


def test_outputs_of_live_teachers_for_the_validation_split_are_planned_and_kept(configure, tmp_path, capsys):
    live = ("teacher_source=live", "trainer.max_epochs=1")
    prepared(configure, tmp_path, *live)
    assert "teacher outputs, validation" in capsys.readouterr().out
    kept = [shard for shard in shards(tmp_path / "outputs" / "cache") if "logits-val" in str(shard)]
    assert len(kept) == 2
    written = [shard.stat().st_mtime_ns for shard in kept]
    prepared(configure, tmp_path, *live, "seed=1", "prepare=false")
    assert [shard.stat().st_mtime_ns for shard in kept] == written
    kept[0].unlink()
    with pytest.raises(UserError, match=r"(?s)prepare=false.*teacher outputs, validation: to compute once"):
        prepared(configure, tmp_path, *live, "seed=2", "prepare=false")
