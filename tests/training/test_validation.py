"""A run without a validation split: the last epoch counts, and what needs validation images is refused."""

import csv
import re

import pytest
import torch

from amtml_pl.data.datasets.cinic10 import Cinic10
from amtml_pl.errors import UserError
from amtml_pl.results.export.export import card_of_run
from amtml_pl.results.run import load_run
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.sweep_folder import SweepFolder, SweepJob
from amtml_pl.training.settings import settings_of
from amtml_pl.training.sweep.jobs import Outcome, ended
from amtml_pl.training.validation import validates
from tiny_runs import CE, TINY, WATCHED, at_step, failing, ready, weights

pytestmark = pytest.mark.slow

ALL = "data.val_size=0"
AVERAGE = ("experiment=digits", "method=avg", *WATCHED, ALL)
ONE = ("experiment=digits", "method=kd", *CE, ALL, "teacher=[vgg8_quarter]",
       "teacher.vgg8_quarter.recipe_overrides=['trainer.max_epochs=1','logger=[]']")  # fmt: skip


@pytest.fixture
def finished(run):
    """Train a run with two teachers without a validation split, with its dashboard."""
    return run(*AVERAGE)


def test_the_last_epoch_counts_and_the_record_says_so(capsys, finished):
    record, folder = finished
    assert record.selection == "last"
    assert record.budget["selection"] == "last"
    assert list(record.dataset.sizes) == ["train", "test"]
    assert not [name for name in record.metrics if "val/" in name]
    assert record.metrics["test/acc"] == record.metrics["test/acc_last"]
    assert {"teacher/vgg8_quarter/test/acc", "teacher/resnet8/test/acc"} <= set(record.metrics)
    selected, last = (
        torch.load(file, weights_only=True) for file in (folder.best_checkpoint, folder.last_checkpoint)
    )
    assert selected["epoch"] == last["epoch"] == 1
    assert all(torch.equal(selected["state_dict"][name], each) for name, each in last["state_dict"].items())
    printed = capsys.readouterr().out
    assert "student, last epoch" in printed
    assert "student, best epoch" not in printed


@pytest.mark.parametrize(("overrides", "name"), [((), "val/acc"), ((ALL,), "train/acc")])
def test_the_line_of_an_epoch_has_the_accuracy_of_its_row_in_the_table(run, capsys, overrides, name):
    _, folder = run("experiment=digits", "method=ce", *CE, *overrides)
    with folder.metrics_file.open() as lines:
        rows = list(csv.DictReader(lines))
    expected = [f"epoch {number}/2: {name} {float(row[name]):.4f}" for number, row in enumerate(rows, 1)]
    assert re.findall("epoch ./2: .*", capsys.readouterr().out) == expected


def test_every_reader_of_a_finished_run_works_without_validation(finished):
    record, folder = finished
    opened = load_run(folder.path)
    assert opened.student("best").network is not None
    assert opened.sample_weights("train").shape == (100, 2)
    assert list(card_of_run(opened, "last").metrics) == ["test/acc"]
    with folder.metrics_file.open() as lines:
        assert "val/acc" not in next(csv.reader(lines))
    with pytest.raises(UserError, match=r"no validation split .got data.val_size=0.*\n.*split=test"):
        opened.split("val")
    job = ended(SweepJob(0, (), str(folder.path), "", "running"), folder, Outcome())
    assert job.accuracy == (None, record.metrics["test/acc"])


def test_teachers_are_trained_on_all_images_too(configure, tmp_path):
    made = ready(configure(*ONE), RunFolder(tmp_path / "run"))
    [teacher] = made.teachers
    assert teacher.record().budget["selection"] == "last"
    assert teacher.record().dataset.sizes == {"train": 100, "test": 360}
    assert list(made.prepared.accuracy["vgg8_quarter"]) == ["test"]


def test_an_interrupted_run_resumes_to_the_same_weights(run, monkeypatch):
    whole, folder = run("experiment=digits", "method=ce", *CE, ALL, name="whole")
    with monkeypatch.context() as patched:
        at_step(patched, 5, failing(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run("experiment=digits", "method=ce", *CE, ALL, name="resumed")
    resumed, other = run("experiment=digits", "method=ce", *CE, ALL, name="resumed")
    assert resumed.metrics == whole.metrics
    assert all(torch.equal(each, weights(other)[name]) for name, each in weights(folder).items())


def test_a_smallest_accuracy_is_compared_with_that_on_training_images(configure, tmp_path):
    made = ready(configure(*ONE, "teacher.vgg8_quarter.min_accuracy=0"), RunFolder(tmp_path / "run"))
    assert 0 <= made.prepared.accuracy["vgg8_quarter"]["train"] <= 1
    with pytest.raises(UserError, match=r"'vgg8_quarter' is too low on the train split .got .*at least 1.0"):
        ready(configure(*ONE, "teacher.vgg8_quarter.min_accuracy=1"), RunFolder(tmp_path / "other"))


OWN_HEAD = ("teacher=[resnet8]", "teacher.resnet8.pretrained=true", "teacher.resnet8.head=linear")


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (
            ("method=amtml", *TINY),
            r"GatedWeighting learns weights .*val_size=0, .*\n.*weighting=uniform, or ",
        ),
        (
            ("method=amtml_adapter", *TINY),
            r"AdaptiveWeighting learns weights .*\n.*weighting.prior=uniform, or ",
        ),
        (("method=avg", *TINY, "weighting=held_out"), r"HeldOutWeighting learns weights"),
        (
            ("method=kd", *TINY),
            r"best selects one of 2 teachers .*\n.*weighting.teacher=vgg8_quarter",
        ),
        (("method=avg", *CE, *OWN_HEAD), r"teacher.resnet8.head=linear selects the strength"),
    ],
)
def test_what_needs_validation_images_is_refused_before_anything_is_trained(
    configure, tmp_path, overrides, text
):
    config = configure("experiment=digits", *overrides, ALL, f"paths.teachers={tmp_path}/teachers")
    with pytest.raises(UserError, match=f"(?s){text}"):
        ready(config, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "teachers").exists()


def test_several_teachers_need_the_name_of_one(configure, tmp_path):
    named = configure("experiment=digits", "method=kd", *TINY, ALL, "weighting.teacher=resnet8")
    assert ready(named, RunFolder(tmp_path / "run")).module.weighting.position == 1


def test_a_data_set_with_its_own_validation_split_keeps_it(configure, tmp_path):
    settings = settings_of(configure("experiment=cinic10", "method=ce", ALL))
    assert validates(settings, settings.dataset.source.build())
    assert isinstance(settings.dataset.source.build(), Cinic10)


def test_a_leaderboard_ranks_by_validation_alone(tmp_path):
    sweep = SweepFolder(tmp_path, "now", "again")
    accuracies = {0: None, 1: (None, 0.9), 2: (0.7, 0.1), 3: (None, 0.8)}
    for number, accuracy in accuracies.items():
        status = "failed" if accuracy is None else "completed"
        sweep.write(SweepJob(number, (f"seed={number}",), "r", "now", status, accuracy=accuracy))
    assert [job.number for job in sweep.jobs()] == [2, 1, 3, 0]
    assert "1,completed,,0.9," in sweep.leaderboard_file.read_text()
