"""A run that reads its teachers' outputs is the run that its live teachers would have given."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from amtml_pl.data.augment import CropFlip
from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.teachers.live import LiveTeachers
from amtml_pl.teachers.selected import SelectedTeacher
from amtml_pl.training.benchmark.peak_memory import parameters_beside
from amtml_pl.training.trainer import make_trainer
from amtml_pl.types import Batch
from rounding import rounding, undecided
from sealing import seal_again
from tiny_runs import CE, TINY, assert_bitwise_equal, ready, weights

AMTML = ("experiment=digits_amtml", *TINY)
# Outputs in float32, from passes of the same size live and cached: some processors round a pass of few images
# otherwise than one of many.
ROUNDED_ALIKE = (
    *AMTML, "trainer.max_epochs=1", "data.train_size=96",
    "cache.logits=float32", "cache.hints=float32", "cache.batch_size=32",
)  # fmt: skip


def prepared(configure, tmp_path, *overrides):
    """A run up to its first step, and its data."""
    made = ready(configure(*AMTML, *overrides), RunFolder(tmp_path / "prepared"))
    return made, made.data


def passes(record):
    return record.cache.teacher_passes


def no_teacher(monkeypatch):
    def refuse(self):
        raise AssertionError(f"teacher {self.name} was built")

    monkeypatch.setattr(SelectedTeacher, "fresh", refuse)


def shards(tmp_path):
    return sorted((tmp_path / "outputs" / "cache").rglob("*.safetensors"))


@pytest.mark.numbers
def test_float32_outputs_train_the_student_that_live_teachers_train_to_the_bit(run):
    _, live = run(*ROUNDED_ALIKE, "teacher_source=live", name="live")
    _, cached = run(*ROUNDED_ALIKE, name="cached")
    assert_bitwise_equal(weights(live), weights(cached))


def test_a_run_passes_each_image_through_each_teacher_once_per_view_and_a_later_run_never(run, monkeypatch):
    first, _ = run(*AMTML, "data.views=2", "trainer.max_epochs=3", name="first")
    assert passes(first) == {"vgg8_quarter": 2.0, "resnet8": 2.0}
    assert first.timing.cache_build_seconds > 0
    fewer, _ = run(*AMTML, "data.views=3", name="more views than epochs")
    assert passes(fewer) == {}  # views 1 and 2 are there, and there is no third epoch
    no_teacher(monkeypatch)
    for seed in (1, 2):
        later, folder = run(*AMTML, "data.views=2", "trainer.max_epochs=3", f"seed={seed}", name=f"{seed}")
        assert passes(later) == {}
        assert later.teachers == first.teachers
        assert folder.weights_file.exists()


@pytest.mark.slow
def test_a_subset_of_the_teachers_and_another_method_use_the_same_outputs(run, monkeypatch):
    run(*AMTML)
    no_teacher(monkeypatch)
    one = [word for word in TINY if "vgg8_quarter" not in word]
    averaged, _ = run("experiment=digits", "method=avg", *one, "teacher=[resnet8]", name="averaged")
    assert passes(averaged) == {}


@pytest.mark.slow
def test_a_cached_run_holds_no_teacher(run, configure, tmp_path):
    run(*AMTML)
    others = parameters_beside(nn.Identity())  # of other tests
    made, data = prepared(configure, tmp_path)
    trainer = make_trainer(made.request.settings.trainer, made.request.folder, made.module)
    trainer.fit(made.module, datamodule=data)
    assert parameters_beside(made.module) == others


@pytest.mark.slow
def test_a_live_run_holds_its_teachers(configure, tmp_path):
    others = parameters_beside(nn.Identity())
    made, _ = prepared(configure, tmp_path, "teacher_source=live")
    assert parameters_beside(made.module) > others


@pytest.mark.numbers
@pytest.mark.parametrize("batch_size", [64, pytest.param(128, marks=pytest.mark.slow)])
def test_a_thousand_random_samples_and_epochs_meet_the_pixels_and_outputs_of_live_teachers(
    configure, tmp_path, batch_size
):
    size = ("data.train_size=400", f"data.batch_size={batch_size}", "data.views=3", "trainer.max_epochs=5")
    made, data = prepared(configure, tmp_path, *size)
    live = LiveTeachers([teacher.load() for teacher in made.teachers])
    drawn, split = np.random.default_rng(0), data.split("train")
    found = 0
    for epoch in drawn.integers(5, size=20).tolist():
        made.data.teachers.provide(data.train_view(epoch))
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
        found += len(index)
    assert found == 1000


@pytest.mark.numbers
@pytest.mark.slow
def test_every_sample_meets_the_same_outputs_whatever_the_batch_size(run, configure, tmp_path):
    run(*AMTML)
    by_sample = []
    for size in (32, 64):
        made, data = prepared(configure, tmp_path, f"data.batch_size={size}")
        batches = [*data.train_batches(1)]
        order = torch.cat([batch.index for batch in batches]).argsort()
        by_sample.append(torch.cat([made.module.teacher_source(batch).logits for batch in batches])[order])
    assert torch.equal(*by_sample)


@pytest.mark.slow
def test_a_cached_run_that_is_interrupted_ends_as_if_it_had_not_been(run, monkeypatch):
    _, whole = run(*AMTML, name="whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run(*AMTML, name="cut")
    record, cut = run(*AMTML, name="cut")
    assert_bitwise_equal(weights(whole), weights(cut))
    assert passes(record) == {}


def stop_at(patch, step):
    """Ctrl-C in the training step with this number."""
    original = DistillModule.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == step:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    patch.setattr(DistillModule, "training_step", training_step)


@pytest.mark.numbers
@pytest.mark.slow
def test_pooled_hints_are_the_same_live_and_cached(run):
    _, live = run(*ROUNDED_ALIKE, "hint_pool=2", "teacher_source=live", name="live")
    _, cached = run(*ROUNDED_ALIKE, "hint_pool=2", name="cached")
    assert_bitwise_equal(weights(live), weights(cached))


@pytest.mark.slow
def test_loader_workers_read_the_cache_and_change_nothing(run):
    _, none = run(*AMTML, name="none")
    _, two = run(*AMTML, "data.num_workers=2", name="two")
    assert_bitwise_equal(weights(none), weights(two))


@pytest.mark.slow
def test_views_on_the_device_train_the_same_student(run):
    _, mapped = run(*AMTML, "cache.device=mapped", name="mapped")
    _, resident = run(*AMTML, "cache.device=resident", name="resident")
    assert_bitwise_equal(weights(mapped), weights(resident))


@pytest.mark.slow
def test_a_flipped_byte_stops_a_run_before_its_first_step(run, tmp_path, monkeypatch):
    run(*AMTML)
    damaged = shards(tmp_path)[-1]  # of the second epoch's view
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with monkeypatch.context() as patch:
        stop_at(patch, 0)
        with pytest.raises(UserError, match=rf"checksum of .*{damaged.name} is wrong"):
            run(*AMTML, "seed=1", name="other seed")
    damaged.unlink()  # as the message says
    record, _ = run(*AMTML, "seed=1", name="other seed")
    assert sum(passes(record).values()) == 1.0


def test_changed_code_of_an_augmentation_stops_a_run_before_its_first_step(run, monkeypatch):
    run(*AMTML)
    other_crops(monkeypatch)
    stop_at(monkeypatch, 0)
    with pytest.raises(UserError, match=r"pixels of sample \d+ of train in view \d are not those"):
        run(*AMTML, "seed=1", name="other seed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("data.augment.seed=1", "augment.seed: 0 there, 1 here"),
        ("data.augment.operations.0.padding=2", r"augment.operations\[0\].padding: 4 there, 2 here"),
        ("hint_pool=2", "tensor.pool: None there, 2 here"),
        ("cache.hints=float32", "storage: 'float16' there, 'float32' here"),
        ("cache.precision=bfloat16", "cache.precision: 'float32' there, 'bfloat16' here"),
    ],
)
def test_without_preparation_a_changed_setting_is_named_with_both_values(run, tmp_path, change, field):
    run(*AMTML)
    expected = rf"(?s)teacher outputs: to compute.*differs in .*{field}.*action=build"
    with pytest.raises(UserError, match=expected):
        run(*AMTML, change, "prepare=false", name="changed")


def test_the_record_of_a_cached_run_names_its_stores_and_the_stores_name_the_run(run, tmp_path):
    record, folder = run(*AMTML)
    assert record.teacher_source == "cached"
    assert record.cache.views == 2
    root = tmp_path / "outputs" / "cache" / "digits"
    assert len(record.cache.stores) == 4
    for name in record.cache.stores:
        (user,) = (root / name / "used_by").glob("*.json")
        assert json.loads(user.read_text())["run"] == str(folder.path.resolve())


def test_cached_outputs_need_a_cached_source(configure, tmp_path):
    config = configure("experiment=digits", "method=ce", *CE)
    assert config.teacher_source == "cached"  # a run without teachers has none, whatever it says
    made = ready(config, RunFolder(tmp_path))
    assert made.cache is None
    assert made.module.teacher_source is None
    assert made.module.terms.keys() == {"ce"}


def other_crops(monkeypatch):
    """An augmentation whose code has changed and whose settings have not."""
    original = CropFlip.__call__

    def other_code(self, images, keys, view):
        return original(self, images, keys, view + 1)

    monkeypatch.setattr(CropFlip, "__call__", other_code)


def test_changed_code_is_noticed_where_a_new_hint_makes_every_view_incomplete(run, monkeypatch):
    run("experiment=digits_amtml", *TINY, "loss=[ce,kd]", "weighting=uniform", name="without hints")
    other_crops(monkeypatch)
    with pytest.raises(UserError, match=r"pixels of sample \d+ of train in view \d are not those"):
        run(*AMTML)


@pytest.mark.slow
def test_a_view_that_other_code_has_half_built_is_noticed_when_it_is_whole(run, tmp_path, monkeypatch):
    larger = ("data.train_size=200", "trainer.max_epochs=1")
    monkeypatch.setattr("amtml_pl.training.teacher_cache.SHARD_ROWS", 50)
    run(*AMTML, *larger)
    for shard in shards(tmp_path):
        if ".00003." in shard.name:
            shard.unlink()
    other_crops(monkeypatch)
    with pytest.raises(UserError, match=r"pixels of sample \d+ of train in view 1 are not those"):
        run(*AMTML, *larger, "seed=1", name="other seed")


@pytest.mark.slow
def test_existing_shards_of_incomplete_views_are_verified_before_the_first_step(run, tmp_path, monkeypatch):
    run("experiment=digits_amtml", *TINY, "loss=[ce,kd]", "weighting=uniform", name="without hints")
    damaged = next(shard for shard in shards(tmp_path) if "view-0002" in shard.name)
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    stop_at(monkeypatch, 0)
    with pytest.raises(UserError, match=rf"checksum of .*{damaged.name} is wrong"):
        run(*AMTML)


@pytest.mark.slow
def test_a_view_that_another_process_has_built_meanwhile_is_verified_too(run, configure, tmp_path):
    made, _ = prepared(configure, tmp_path)
    run(*AMTML, name="another process")
    (damaged, *_) = [shard for shard in shards(tmp_path) if "view-0002" in shard.name]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=rf"checksum of .*{damaged.name} is wrong"):
        made.data.teachers.provide(2)


@pytest.mark.slow
def test_weights_that_are_replaced_while_a_run_goes_on_are_not_taken_for_the_old_ones(
    run, configure, tmp_path
):
    own = (f"paths.teachers={tmp_path}/teachers",)
    made, _ = prepared(configure, tmp_path, *own)
    file = made.teachers[0].folder.weights_file
    state = load_file(file)
    save_file({name: tensor + 1 if "fc" in name else tensor for name, tensor in state.items()}, file)
    seal_again(file.parent)  # as a teacher that was trained anew
    with pytest.raises(UserError, match=r"weights of teacher 'vgg8_quarter' have changed since"):
        made.data.teachers.provide(2)


@pytest.mark.slow
def test_a_half_done_run_does_not_go_on_with_other_teachers(run, monkeypatch, tmp_path):
    own = f"paths.teachers={tmp_path}/teachers"
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            run(*AMTML, own)
    (file,) = (tmp_path / "teachers" / "digits").glob("resnet8-*/student.safetensors")
    state = load_file(file)
    save_file({name: tensor + 1 if "fc" in name else tensor for name, tensor in state.items()}, file)
    seal_again(file.parent)  # as a teacher that was trained anew
    with pytest.raises(UserError, match=r"(?s)began with other weights of teacher 'resnet8'.*force=true"):
        run(*AMTML, own)


@pytest.mark.slow
def test_a_pixel_that_has_changed_in_the_packed_file_is_noticed(run, configure, tmp_path):
    own = f"paths.data={tmp_path}/data"
    run(*AMTML, own)
    (file,) = (tmp_path / "data" / "packed").glob("*/train.images.npy")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"manifest.json lists another checksum than its images"):
        run(*AMTML, own, "seed=1", name="other seed")


@pytest.mark.slow
def test_what_live_teachers_say_of_the_validation_split_is_planned_and_kept(run, tmp_path, capsys):
    live = (*AMTML, "teacher_source=live", "trainer.max_epochs=1")
    run(*live, name="first")
    assert "teacher outputs, validation" in capsys.readouterr().out
    kept = [shard for shard in shards(tmp_path) if "logits-val" in str(shard)]
    assert len(kept) == 2
    written = [shard.stat().st_mtime_ns for shard in kept]
    run(*live, "seed=1", "prepare=false", name="second")
    assert [shard.stat().st_mtime_ns for shard in kept] == written
    kept[0].unlink()
    with pytest.raises(UserError, match=r"(?s)prepare=false.*teacher outputs, validation: to compute once"):
        run(*live, "seed=2", "prepare=false", name="third")


@pytest.mark.slow
def test_without_preparation_a_view_that_vanishes_is_not_built(run, configure, tmp_path):
    run(*AMTML)
    made, _ = prepared(configure, tmp_path, "prepare=false")
    for shard in shards(tmp_path):
        if "view-0002" in shard.name:
            shard.unlink()
    made.cache.trusted.clear()
    with pytest.raises(UserError, match=r"view 2 of the teachers' outputs for the train split lacks"):
        made.data.teachers.provide(2)
