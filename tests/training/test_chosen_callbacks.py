"""Callbacks by name: what they change, what of it is recorded, and what a resume repeats."""

import csv
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from amtml_pl.config.paths import config_directory
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.identity import run_hash
from amtml_pl.training import fit as fit_module
from amtml_pl.training.preflight import check_parts
from amtml_pl.training.settings import settings_of
from tiny_runs import CE, TINY, WATCHED_CE, assert_bitwise_equal, at_step, failing, trained, weights

pytestmark = pytest.mark.slow

LABELS = ("experiment=digits", "method=ce", *CE)
EMA = ("callbacks=[ema]", "callbacks.ema.decay=0.5")


@pytest.fixture
def fit(configure, tmp_path):
    """Return a function that trains a run in a folder of the test."""

    def go(*overrides, name="run"):
        folder = RunFolder(tmp_path / name)
        return trained(configure(*overrides), folder), folder

    return go


def interrupted(fit, monkeypatch, step, *overrides):
    with monkeypatch.context() as patched:
        at_step(patched, step, failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(*overrides)


def test_the_choices_are_those_that_this_file_tests():
    choices = {file.stem for file in (config_directory() / "callbacks").glob("*.yaml")}
    assert choices == {"early_stopping", "ema", "lr_monitor", "device_stats"}


def test_only_callbacks_that_change_the_result_are_part_of_the_hash(configure, monkeypatch):
    def hashed(*callbacks):
        return run_hash(configure(*LABELS, *callbacks))

    base = hashed()
    assert hashed("callbacks=[lr_monitor,device_stats]", "callbacks.lr_monitor.logging_interval=step") == base
    changed = [hashed(f"callbacks=[{name}]") for name in ("ema", "early_stopping")]
    changed += [hashed(*EMA), hashed("+callbacks.mine._target_=own_callbacks.Failing")]
    assert len({base, *changed}) == 5
    assert hashed("callbacks=[ema,lr_monitor]") == changed[0]


def test_a_callback_of_mine_counts_under_the_name_of_one_that_only_watches(fit, configure, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "own_callbacks.Failing")
    mine = ("+callbacks.lr_monitor._target_=own_callbacks.Failing", "+callbacks.lr_monitor.epoch=9")
    assert run_hash(configure(*LABELS, *mine)) != run_hash(configure(*LABELS))
    record, _ = fit(*LABELS, *mine)
    assert record.budget["callbacks"] == "lr_monitor Failing(epoch=9)"
    watching = "+callbacks.mine._target_=pytorch_lightning.callbacks.LearningRateMonitor"
    assert run_hash(configure(*LABELS, watching)) == run_hash(configure(*LABELS))


@pytest.mark.parametrize("job", [LABELS, ("experiment=digits", "method=avg", *TINY, "teacher_source=live")])
def test_the_average_is_validated_saved_and_tested_and_a_resume_repeats_it(fit, monkeypatch, job):
    record, folder = fit(*job, *EMA, name="at once")
    plain, other = fit(*job, name="plain")
    last, best = (
        torch.load(file, weights_only=True) for file in (folder.last_checkpoint, folder.best_checkpoint)
    )
    trained_weights = torch.load(other.last_checkpoint, weights_only=True)["state_dict"]
    assert_bitwise_equal(last["current_model_state"], trained_weights)  # watched, not changed
    name = "student.network.fc.weight"
    assert not torch.equal(last["state_dict"][name], trained_weights[name])
    assert torch.equal(best["state_dict"][name], weights(folder)["fc.weight"])
    assert record.metrics["val/loss_last"] != plain.metrics["val/loss_last"]
    with folder.metrics_file.open() as lines:
        rows = [*csv.DictReader(lines)]
    selected = max(rows, key=lambda row: float(row["val/acc"]))
    for row, suffix in ((selected, ""), (rows[-1], "_last")):
        for metric in ("val/acc", "val/loss"):
            assert record.metrics[f"{metric}{suffix}"] == pytest.approx(float(row[metric]), rel=1e-5)
    for step in (2, 6):
        interrupted(fit, monkeypatch, step, *job, *EMA)
    _, again = fit(*job, *EMA)
    assert_bitwise_equal(weights(again), weights(folder))
    assert_bitwise_equal(
        torch.load(again.last_checkpoint, weights_only=True)["state_dict"], last["state_dict"]
    )


def test_before_its_first_update_the_average_is_the_current_weights(fit):
    record, folder = fit(*LABELS, *EMA, "callbacks.ema.update_starting_at_step=1000", name="late")
    plain, other = fit(*LABELS, name="plain")
    assert record.metrics == plain.metrics
    assert_bitwise_equal(weights(folder), weights(other))


STOPPED = ("callbacks=[early_stopping]", "callbacks.early_stopping.patience=1", "trainer.max_epochs=6",
           "callbacks.early_stopping.min_delta=1.0")  # fmt: skip


def test_a_stopped_run_records_the_epochs_that_it_has_trained(fit, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:  # after the last epoch, before its evaluation
        patched.setattr(fit_module, "validate_and_test", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(*LABELS, *STOPPED)
    record, folder = fit(*LABELS, *STOPPED)
    assert record.budget["epochs"] == 2
    assert record.budget["callbacks"].startswith("early_stopping ")
    assert len(folder.metrics_file.read_text().splitlines()) == 3


def test_early_stopping_needs_a_validation_split(fit):
    with pytest.raises(UserError, match=r"callbacks.early_stopping reads val/acc on the validation split"):
        fit(*LABELS, "data.val_size=0", "callbacks=[early_stopping]")


def test_tensorboard_shows_what_monitors_pass_to_the_loggers(fit):
    words = ("experiment=digits", "method=ce", *WATCHED_CE)
    _, folder = fit(*words, "callbacks=[lr_monitor,device_stats]", "+trainer.log_every_n_steps=1")
    found = EventAccumulator(str(folder.path))
    found.Reload()
    tags = found.Tags()["scalars"]
    assert "lr-SGD/student" in tags
    assert any("cpu_percent" in tag for tag in tags)
    assert [point.step for point in found.Scalars("lr-SGD/student")] == [0, 1]


def test_a_callback_that_raises_ends_the_fit_resumable(fit, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "own_callbacks.Failing")
    own = ("+callbacks.mine._target_=own_callbacks.Failing", "+callbacks.mine.epoch=1")
    with pytest.raises(
        UserError,
        match=r"^callbacks.mine raised ValueError in on_train_epoch_end: the disk of my laptop. After a cor",
    ):
        fit(*LABELS, *own)
    record, folder = fit(*LABELS)
    assert record.status == "completed"
    _, whole = fit(*LABELS, name="whole")
    assert_bitwise_equal(weights(folder), weights(whole))


def test_device_stats_without_psutil_is_one_message_before_anything_is_made(configure, monkeypatch):
    monkeypatch.setitem(sys.modules, "psutil", None)
    words = (*LABELS, "callbacks=[device_stats]")
    with pytest.raises(
        UserError, match=r"'psutil' is not installed.\nFix: pip install 'amtml-pl\[device-stats\]'"
    ):
        check_parts(settings_of(configure(*words)))
    check_parts(settings_of(configure(*words, "callbacks.device_stats.cpu_stats=false")))
