"""Dashboard of a run, read back from its event files."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.training.dashboard.callback import Dashboard
from amtml_pl.training.dashboard.logger import TensorBoard
from amtml_pl.training.dashboard.tags import FINAL, hyperparameters, tag_of
from tiny_runs import WATCHED, WATCHED_CE, assert_bitwise_equal, trained, weights


def events(folder):
    everything = {"scalars": 0, "images": 0, "histograms": 0, "tensors": 0}
    found = EventAccumulator(str(folder.path), size_guidance=everything)
    found.Reload()
    return found


def curve(found, tag):
    return {event.step: event.value for event in found.Scalars(tag)}


def rows(folder):
    with folder.metrics_file.open() as lines:
        return list(csv.DictReader(lines))


WATCHED = (*WATCHED, "logger.tensorboard.figures_every=1")


@pytest.fixture
def watched(configure, shared):
    """Return the record and the folder of a run with everything that a dashboard can have."""
    folder = RunFolder(shared / "watched")
    if not folder.path.exists():
        trained(configure("experiment=digits_amtml", *WATCHED), folder, experiment="digits_amtml")
    return folder.completed(), folder


def test_figures_need_an_interval_of_at_least_one_epoch(tmp_path):
    with pytest.raises(UserError, match=r"figures_every is too small \(got 0, expected 1 or more\)"):
        TensorBoard(tmp_path, figures_every=0)


@pytest.mark.numbers
def test_the_event_file_holds_all_metrics_of_the_run(watched):
    record, folder = watched
    found = events(folder)
    assert len(list(folder.path.glob("events.out.tfevents.*"))) == 1
    for row in rows(folder):
        for name, value in row.items():
            if name not in ("epoch", "step", "lr"):
                assert curve(found, tag_of(name))[int(row["epoch"])] == pytest.approx(float(value), rel=1e-6)
        assert curve(found, "student/lr")[int(row["epoch"])] == pytest.approx(float(row["lr"]))
    for name in ("vgg8_quarter", "resnet8"):
        accuracy = record.metrics[f"teacher/{name}/val/acc"]
        assert curve(found, f"teacher/{name}/val/acc") == pytest.approx({0: accuracy, 1: accuracy})
        for kind in ("agreement_label", "agreement_student", "weight_entropy"):
            assert set(curve(found, f"teacher/{name}/{kind}")) == {0, 1}
        assert [each.step for each in found.Histograms(f"teacher/{name}/weights")] == [0, 1]
        weights = found.Histograms(f"teacher/{name}/weights")[0].histogram_value
        assert (weights.num, sum(weights.bucket)) == (100, 100)
        assert (weights.min, weights.max, len(weights.bucket)) == (0.0, 1.0, 40)  # the same axis for all
    assert set(curve(found, "ensemble/val/acc")) == {0, 1}
    parts = [curve(found, f"teacher/{name}/weight_entropy")[1] for name in ("vgg8_quarter", "resnet8")]
    assert sum(parts) == pytest.approx(curve(found, "ensemble/weight_entropy")[1], rel=1e-5)
    assert images_of(found) == {
        "student/val/confusion": [0],
        "ensemble/weights_by_class": [0, 2], "ensemble/disputed_images": [0, 2],
        **{f"student/best/{split}/confusion": [2] for split in ("val", "test")},
    }  # fmt: skip


def images_of(found):
    return {tag: [image.step for image in found.Images(tag)] for tag in found.Tags()["images"]}


@pytest.mark.numbers
def test_gradient_shares_are_the_doctors_first_and_then_measured(watched):
    _, folder = watched
    found = events(folder)
    doctor = json.loads(folder.doctor_file.read_text())["gradient_share"]
    for epoch in (0, 1):
        shares = {name: curve(found, f"student/gradient_share/{name}")[epoch] for name in doctor}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert (shares == pytest.approx(doctor)) == (epoch == 0)


def test_custom_scalars_lay_out_curves_that_exist(watched):
    found = events(watched[1])
    tensor = found.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = Layout.FromString(tensor)
    assert [category.title for category in layout.category] == [
        "Accuracy of student, teachers and ensemble", "Teacher weights", "Losses and gradients",
    ]  # fmt: skip
    tags = found.Tags()["scalars"]
    for category in layout.category:
        for chart in category.chart:
            for pattern in chart.multiline.tag:
                assert any(re.match(pattern, tag) for tag in tags), f"{chart.title}: {pattern}"


def test_the_table_of_hyperparameters_has_the_final_metrics(watched):
    record, folder = watched
    assert not [path for path in folder.path.iterdir() if path.is_dir() and path.name != "checkpoints"]
    found = events(folder)
    data = {
        tag: HParamsPluginData.FromString(found.SummaryMetadata(tag).plugin_data.content)
        for tag in ("_hparams_/experiment", "_hparams_/session_start_info")
    }
    columns = {info.name.tag for info in data["_hparams_/experiment"].experiment.metric_infos}
    assert columns == set(FINAL.values())
    for name, tag in FINAL.items():
        assert curve(found, tag) == {2: pytest.approx(record.metrics[name])}
    values = data["_hparams_/session_start_info"].session_start_info.hparams
    assert values["teachers"].string_value == "vgg8_quarter, resnet8"
    assert values["seed"].number_value == 0.0
    assert values["method"].string_value == "of the experiment"
    assert values["training/lr"].number_value == 0.05
    assert f"{record.loss['kd']:g} kd" in values["loss"].string_value
    typed = hyperparameters(record.replaced(command="python -m amtml_pl.train method=camkd"), None)
    assert typed["method"] == "camkd"
    assert typed["overrides"] == "none"
    swept = "experiment=x seed=1 weighting.lr=0.1 data.train_size=5 loop.period=3 paths.outputs=o logger=[]"
    typed = hyperparameters(record.replaced(command=f"python -m amtml_pl.train {swept}"), None)
    assert typed["overrides"] == "weighting.lr=0.1 data.train_size=5 loop.period=3"
    assert typed.keys() == values.keys()
    assert sorted(values)[:5] == ["experiment", "loss", "method", "overrides", "seed"]  # which are shown


def test_the_weights_by_class_are_kept_for_every_epoch(watched):
    _, folder = watched
    with folder.weights_by_class_file.open() as lines:
        found = list(csv.DictReader(lines))
    assert list(found[0]) == ["epoch", "class", "vgg8_quarter", "resnet8"]
    whose = {(str(epoch), str(k)) for epoch in (0, 1) for k in range(10)}
    assert {(row["epoch"], row["class"]) for row in found} == whose
    for row in found:
        assert float(row["vgg8_quarter"]) + float(row["resnet8"]) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.numbers
def test_the_dashboard_changes_no_bit_of_a_run(moved, watched):
    """Of two runs with the same seed, one has no loggers."""
    seen_record, seen = watched
    unseen = RunFolder(moved)
    record = unseen.completed()
    assert_bitwise_equal(weights(seen), weights(unseen))
    assert seen_record.metrics == record.metrics
    assert not unseen.weights_by_class_file.exists()
    last = [torch.load(folder.last_checkpoint, weights_only=True) for folder in (seen, unseen)]
    assert_bitwise_equal(last[0]["state_dict"], last[1]["state_dict"])


def test_a_run_without_teachers_has_no_tags_of_teachers(run):
    _, folder = run("experiment=digits", "method=ce", *WATCHED_CE)
    tags = events(folder).Tags()["scalars"]
    assert "student/val/acc" in tags
    assert "student/gradient_share/ce" in tags
    assert not [tag for tag in tags if tag.startswith(("teacher", "ensemble"))]
    assert not folder.weights_by_class_file.exists()


@pytest.mark.slow
def test_the_ensemble_is_left_out_if_validation_outputs_are_not_cached(run, tmp_path):
    _, folder = run("experiment=digits", "method=avg", *WATCHED, f"paths.cache={tmp_path}/cold")
    tags = events(folder).Tags()["scalars"]
    assert "ensemble/val/acc" not in tags
    assert "ensemble/train/acc" in tags


def test_a_run_killed_in_the_fit_and_after_it_has_one_point_per_epoch(run, monkeypatch, watched):
    job = ("experiment=digits_amtml", *WATCHED)
    _, whole = watched
    step, conclude = DistillModule.training_step, Dashboard.conclude
    monkeypatch.setattr("amtml_pl.training.dashboard.logger.pixels", lambda _: np.zeros((1, 1, 3), np.uint8))

    def cut_in_second_step(self, batch, batch_idx):
        if self.global_step == 2 and self.teacher_source is not None:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    def cut_before_record(self, trainer, metrics):
        conclude(self, trainer, metrics)
        raise KeyboardInterrupt

    cuts = ((DistillModule, "training_step", cut_in_second_step), (Dashboard, "conclude", cut_before_record))
    for owner, method, fault in cuts:
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, fault)
            with pytest.raises(KeyboardInterrupt):
                run(*job, name="cut")
    _, cut = run(*job, name="cut")
    assert_bitwise_equal(weights(whole), weights(cut))
    expected, found = events(whole), events(cut)
    for tag in expected.Tags()["scalars"]:
        assert [event.step for event in found.Scalars(tag)] == [event.step for event in expected.Scalars(tag)]
    for name in rows(whole)[0]:
        if name not in ("epoch", "step", "lr"):
            assert curve(found, tag_of(name)) == pytest.approx(curve(expected, tag_of(name)), rel=1e-6)
    assert images_of(found) == images_of(expected)
    assert cut.weights_by_class_file.read_bytes() == whole.weights_by_class_file.read_bytes()
