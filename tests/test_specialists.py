"""Teachers that have each seen some of the classes, and a student that learns all."""

import csv
import math
import re

import pytest
import torch

from amtml_pl.config.checks import check
from amtml_pl.results.evaluation.evaluation import evaluate_student
from amtml_pl.results.evaluation.images import own_images
from amtml_pl.results.run import load_run
from amtml_pl.training.settings import settings_of

pytestmark = pytest.mark.slow

QUICK = ("trainer.max_epochs=1", "logger=[]")
SEEN = {"resnet8": [0, 1, 2, 3], "vgg8_quarter": [3, 4, 5, 6], "wrn_10_1": [6, 7, 8, 9]}
TINY = (
    "experiment=digits_specialists", "trainer=cpu", "trainer.max_epochs=2", "data.train_size=100",
    "data.val_size=60", "data.batch_size=32", "teacher_source=cached",
    *(
        f"teacher.{name}.recipe_overrides=['data.classes=[{','.join(map(str, classes))}]',"
        f"'trainer.max_epochs=1','logger=[]']" for name, classes in SEEN.items()
    ),
)  # fmt: skip


@pytest.mark.parametrize("experiment", ["digits_specialists", "cifar10_jpeg_specialists"])
def test_the_teachers_of_an_experiment_know_every_class_together_and_four_each(configure, experiment):
    config = configure(f"experiment={experiment}", "method=amtml")
    check(config)
    known = [
        [place for place, output in enumerate(teacher.class_map) if output is not None]
        for teacher in settings_of(config).selected
    ]
    assert [len(classes) for classes in known] == [4, 4, 4]
    assert {place for classes in known for place in classes} == {*range(10)}


@pytest.mark.parametrize("experiment", ["digits_specialists_teacher", "cifar10_jpeg_specialists_teacher"])
def test_a_recipe_of_specialists_is_an_experiment_of_its_own(configure, experiment):
    config = configure(f"experiment={experiment}")
    check(config)
    assert len(config.data.classes) == 4


def test_a_student_learns_all_classes_from_specialists_and_can_be_evaluated(run):
    record, folder = run(*TINY, "method=camkd", "logger=[tensorboard]", "logger.tensorboard.figures_every=1")
    assert record.status == "completed"
    # A label that one teacher knows has weight 1 on it; of those that two know each has a half.
    assert record.metrics["weight_known"] == pytest.approx(1.0)
    with folder.weights_by_class_file.open() as lines:
        last = [row for row in csv.DictReader(lines) if row["epoch"] == "1"]
    for name, classes in SEEN.items():
        assert {row["class"] for row in last if float(row[name]) > 0} == {str(c) for c in classes}
    finished = load_run(folder.path)
    assert finished.config["teacher"]["resnet8"]["class_map"] == [0, 1, 2, 3, *[None] * 6]
    outputs = finished.teacher_outputs("train", view=1)
    assert torch.isfinite(outputs.logits).sum(dim=2).unique().tolist() == [4]
    about = evaluate_student(finished, own_images(finished, "test"), latency=False).ensemble
    assert about.absent == {}
    assert about.mixtures["own"].reads_labels
    alone, any_right = (about.mixtures[name].acc for name in ("best_single", "any_right"))
    assert alone <= min(0.5, any_right)  # it knows four of ten classes
    assert all(math.isfinite(each.nll) for each in about.mixtures.values() if each.nll is not None)


def test_a_specialist_is_trained_and_measured_on_its_classes_alone(run, tmp_path):
    record, _ = run(
        "experiment=digits_specialists_teacher", "student=resnet8_thin", "data.classes=[2,5]",
        "data.train_size=100", "data.val_size=60", "trainer=cpu", *QUICK,
        f"paths.teachers={tmp_path}/teachers",
    )  # fmt: skip
    assert record.metrics["val/acc"] in [right / 12 for right in range(13)]


def test_a_specialist_of_a_completed_run_knows_the_classes_of_its_images(run, configure, tmp_path):
    _, folder = run(
        "experiment=digits_specialists_teacher", "student=resnet8_thin", "data.classes=[2,5]",
        "data.train_size=100", "data.val_size=60", "trainer=cpu", *QUICK,
        f"paths.teachers={tmp_path}/teachers",
    )  # fmt: skip
    config = configure("experiment=digits", "teacher=[resnet8_thin]", "method=avg")
    config.teacher.resnet8_thin.weights.run = str(folder.path)
    [teacher] = settings_of(config).selected
    assert teacher.class_map == [None, None, 2, None, None, 5, *[None] * 4]
    config.teacher.resnet8_thin.head = "linear"  # is fitted on all classes
    [backbone] = settings_of(config).selected
    assert backbone.class_map is None


REFUSED = {
    "a class that no teacher knows": (
        ("teacher=[resnet8,vgg8_quarter]", "~teacher.wrn_10_1"),
        r"None of the teachers .*knows the classes \[7, 8, 9\](.|\n)*'data.classes=\[0,1,2,3,4,5,6\]'",
    ),
    "no class of the images": (("data.classes=[0,1]",), r"'wrn_10_1' knows none of the classes \[0, 1\]"),
    "mixed logits": (("mixture=logits",), r"mixture=logits cannot average(.|\n)*mixture=probabilities"),
    "one class": (("data.classes=[3]",), r"data.classes=\[3\]: expected a list of two or more classes"),
    "a class map of a recipe": (
        ("teacher.resnet8.class_map=[0,1,2,3,null,null,null,null,null,null]",),
        r"teacher.resnet8.class_map=.* its recipe trains the teacher (.|\n)*expected null",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_specialists_that_do_not_fit_are_refused_before_anything_is_trained(mistake, case):
    overrides, text = REFUSED[case]
    output = mistake(*TINY[:7], "method=avg", *overrides)
    assert re.search(text, output)
