"""What TensorBoard finds in the folder of a run, read back from its event files."""

import csv
import json
import re

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from amtml_pl.distill.step import DistillModule
from amtml_pl.runs.folder import RunFolder
from amtml_pl.training.dashboard.budget import Budget
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


@pytest.fixture
def generous(monkeypatch):
    """Lets everything that the budget could leave out be done."""
    monkeypatch.setattr(Budget, "allows", lambda *_, **__: True)


@pytest.fixture
def watched(configure, shared, generous):
    """A run with everything that a dashboard can have: its record and its folder."""
    folder = RunFolder(shared / "watched")
    if not folder.path.exists():
        trained(configure("experiment=digits_amtml", *WATCHED), folder, experiment="digits_amtml")
    return folder.completed(), folder


def test_a_metric_says_whose_it_is():
    assert tag_of("loss/kd") == "student/loss/kd"
    assert tag_of("weight/resnet8") == "teacher/resnet8/weight"
    assert tag_of("weight_entropy") == "ensemble/weight_entropy"
    assert tag_of("teacher/resnet8/val/acc") == "teacher/resnet8/val/acc"


@pytest.mark.numbers
def test_the_event_file_holds_everything_that_the_run_has_measured(watched):
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
        assert found.Histograms(f"teacher/{name}/weights")[0].histogram_value.num == 100
    assert set(curve(found, "ensemble/val/acc")) == {0, 1}
    parts = [curve(found, f"teacher/{name}/weight_entropy")[1] for name in ("vgg8_quarter", "resnet8")]
    assert sum(parts) == pytest.approx(curve(found, "ensemble/weight_entropy")[1], rel=1e-5)
    images = {tag: [image.step for image in found.Images(tag)] for tag in found.Tags()["images"]}
    assert images == {
        "student/val/confusion": [0], "student/val/reliability": [0],
        "ensemble/weights_by_class": [0, 2], "ensemble/disputed_images": [0, 2],
        **{f"student/best/{split}/confusion": [2] for split in ("val", "test")},
        **{f"student/best/{split}/reliability": [2] for split in ("val", "test")},
    }  # fmt: skip
    assert found.Graph().node
    text = found.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "digits_amtml" in text


@pytest.mark.numbers
def test_shares_of_the_gradient_are_the_doctors_at_first_and_measured_in_the_fit(watched):
    _, folder = watched
    found = events(folder)
    doctor = json.loads(folder.doctor_file.read_text())["gradient_share"]
    for epoch in (0, 1):
        shares = {name: curve(found, f"student/gradient_share/{name}")[epoch] for name in doctor}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert (shares == pytest.approx(doctor)) == (epoch == 0)


@pytest.mark.slow
def test_custom_scalars_lay_out_curves_that_exist(run):
    _, folder = run("experiment=digits_amtml", *WATCHED, "logger.tensorboard.budget=0")
    found = events(folder)
    tensor = found.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout = Layout.FromString(tensor)
    assert [category.title.split("?")[0] for category in layout.category] == [
        "Does it help", "Whom does it listen to", "What is it trained by",
    ]  # fmt: skip
    tags = found.Tags()["scalars"]
    for category in layout.category:
        for chart in category.chart:
            for pattern in chart.multiline.tag:
                assert any(re.match(pattern, tag) for tag in tags), f"{chart.title}: {pattern}"


def test_the_table_of_hyperparameters_has_the_final_metrics_in_the_run_itself(watched):
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
def test_looking_at_a_run_changes_none_of_its_bits(moved, watched):
    """Of two runs with the same seed, one has no loggers."""
    seen_record, seen = watched
    unseen = RunFolder(moved)
    record = unseen.completed()
    assert_bitwise_equal(weights(seen), weights(unseen))
    assert seen_record.metrics == record.metrics
    assert not unseen.weights_by_class_file.exists()
    last = [torch.load(folder.last_checkpoint, weights_only=True) for folder in (seen, unseen)]
    assert_bitwise_equal(last[0]["state_dict"], last[1]["state_dict"])


def test_a_run_from_labels_alone_has_no_word_of_teachers(run, generous):
    _, folder = run("experiment=digits", "method=ce", *WATCHED_CE)
    tags = events(folder).Tags()["scalars"]
    assert "student/val/acc" in tags
    assert "student/gradient_share/ce" in tags
    assert not [tag for tag in tags if tag.startswith(("teacher", "ensemble"))]
    assert not folder.weights_by_class_file.exists()


@pytest.mark.slow
def test_figures_that_would_cost_something_are_named_as_left_out(run, tmp_path):
    _, folder = run("experiment=digits", "method=avg", *WATCHED, f"paths.cache={tmp_path}/cold")
    found = events(folder)
    assert "ensemble/val/acc" not in found.Tags()["scalars"]
    text = found.Tensors("run/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "not in the cache" in text
    assert "ensemble/train/acc" in found.Tags()["scalars"]


def test_the_curves_of_a_resumed_run_go_on_without_a_second_point(run, monkeypatch, watched):
    job = ("experiment=digits_amtml", *WATCHED)
    _, whole = watched
    original = DistillModule.training_step

    def faulty(self, batch, batch_idx):
        if self.global_step == 2 and self.teacher_source is not None:
            raise KeyboardInterrupt
        return original(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DistillModule, "training_step", faulty)
        with pytest.raises(KeyboardInterrupt):
            run(*job, name="cut")
    _, cut = run(*job, name="cut")
    assert_bitwise_equal(weights(whole), weights(cut))
    expected, found = events(whole), events(cut)
    for tag in expected.Tags()["scalars"]:
        if tag != "dashboard/share_of_fit":
            steps = [[event.step for event in each.Scalars(tag)] for each in (found, expected)]
            assert steps[0] == steps[1], tag
    for name in rows(whole)[0]:
        if name not in ("epoch", "step", "lr"):
            assert curve(found, tag_of(name)) == pytest.approx(curve(expected, tag_of(name)), rel=1e-6)
    assert cut.weights_by_class_file.read_bytes() == whole.weights_by_class_file.read_bytes()
