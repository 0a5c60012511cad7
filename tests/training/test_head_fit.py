"""A backbone without a classifier teaches: by a fitted one, or by its hints alone."""

import json
import shutil

import pytest
import torch

from amtml_pl.config.checks import check
from amtml_pl.errors import UserError
from amtml_pl.results.evaluation.evaluation import evaluate_student
from amtml_pl.results.evaluation.images import own_images
from amtml_pl.results.run import load_run
from amtml_pl.runs.folder import RunFolder
from amtml_pl.teachers import linear_head
from amtml_pl.training import head_fit
from tiny_runs import CE, assert_bitwise_equal, ready, weights

pytestmark = pytest.mark.slow

BACKBONE = (
    "experiment=digits", "method=avg", *CE, "teacher=[resnet8]", "teacher.resnet8.pretrained=true",
    "teacher.resnet8.network._target_=tiny_runs.features_only",
)  # fmt: skip
LINEAR = (*BACKBONE, "teacher.resnet8.head=linear")
HINTS = (*BACKBONE, "teacher.resnet8.head=none", "loss=[ce,hint]", "coef.hint=1.0")


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "tiny_runs.features_only")


@pytest.fixture
def teachers(tmp_path):
    """The root of teachers of this test, without classifiers that another one has fitted."""
    return f"paths.teachers={tmp_path / 'teachers'}"


def test_a_classifier_is_fitted_once_and_a_repeated_run_has_equal_bits(run, teachers, tmp_path, monkeypatch):
    first, folder = run(*LINEAR, teachers, name="first")
    assert first.cache.teacher_passes == {"resnet8": 3.0}  # the features, and two views
    [file] = (tmp_path / "teachers" / "heads").glob("*.safetensors")
    record = linear_head.read_head(file).record
    assert first.metrics["teacher/resnet8/val/acc"] == pytest.approx(record.accuracy)
    assert record.accuracy > 0.3  # of ten classes

    monkeypatch.setattr(head_fit, "fit_head", None)  # a second fit would fail
    again, other = run(*LINEAR, teachers, name="again")
    assert again.cache.teacher_passes == {}
    assert_bitwise_equal(weights(folder), weights(other))

    # Without the cached outputs, the teacher is found by its weights.
    shutil.rmtree(tmp_path / "outputs" / "cache")
    opened = load_run(folder.path)
    found = evaluate_student(opened, own_images(opened, "test"), latency=False)
    accuracy = found.metrics["teacher/resnet8/test/acc"]
    assert accuracy == pytest.approx(first.metrics["teacher/resnet8/test/acc"], abs=0.01)
    assert not any(part.startswith(("teacher", "ensemble")) for part in found.left_out)


def test_another_classifier_is_another_fingerprint(configure, teachers, tmp_path):
    by_hint = ready(configure(*LINEAR, teachers), RunFolder(tmp_path / "hint")).prepared.plan.teachers[0]
    output = (*LINEAR, teachers, "teacher.resnet8.hint=null")
    by_output = ready(configure(*output), RunFolder(tmp_path / "output")).prepared.plan.teachers[0]
    heads = [teacher.identity()["head"] for teacher in (by_hint, by_output)]
    hint, output = (head["features"] for head in heads)
    assert (hint["module"], hint["tokens"], output) == ("layer3", "patches", None)
    assert by_hint.backbone_identity() == by_output.backbone_identity()


def test_live_and_cached_teachers_share_the_classifier(configure, teachers, tmp_path):
    cached = ready(configure(*LINEAR, teachers), RunFolder(tmp_path / "cached"))
    live = ready(configure(*LINEAR, teachers, "teacher_source=live"), RunFolder(tmp_path / "live"))
    assert live.module.spent.teacher_passes == {}
    assert cached.facts["resnet8"].weights_digest == live.facts["resnet8"].weights_digest


def test_a_term_that_runs_the_classifiers_of_teachers_runs_the_fitted_one(configure, teachers, tmp_path):
    words = (*LINEAR, teachers, "method=camkd")
    made = ready(configure(*words), RunFolder(tmp_path / "run"))
    [head] = made.module.heads.values()
    features = torch.randn(2, 64, 4, 4)
    assert torch.allclose(head(features), head[2](features.mean(dim=(2, 3))), atol=1e-5)


def test_a_weak_classifier_is_refused(configure, teachers, tmp_path):
    with pytest.raises(UserError, match=r"accuracy of teacher 'resnet8' is too low .*at least 1.0000"):
        ready(configure(*LINEAR, teachers, "teacher.resnet8.min_accuracy=1"), RunFolder(tmp_path / "run"))


def test_without_preparation_a_missing_classifier_is_named(configure, teachers, tmp_path):
    ready(configure(*LINEAR, teachers), RunFolder(tmp_path / "run"))
    shutil.rmtree(tmp_path / "teachers" / "heads")
    with pytest.raises(UserError, match=r"(?s)prepare=false forbids .*linear head to fit on its features"):
        ready(configure(*LINEAR, teachers, "prepare=false"), RunFolder(tmp_path / "run"))


def test_a_backbone_with_new_random_weights_is_refused(configure, teachers, tmp_path):
    random = "teacher.resnet8.network._target_=amtml_pl.models.cifar_resnet.CifarResNet"
    torch.manual_seed(7)
    with pytest.raises(
        UserError, match=r"(?s)different network weights at each.*set teacher.resnet8.weights.p"
    ):
        ready(configure(*LINEAR, teachers, random), RunFolder(tmp_path / "run"))


def test_hints_alone_teach_and_no_logits_are_reported(run, teachers):
    record, folder = run(*HINTS, teachers)
    assert not record.teachers["resnet8"].has_logits
    assert not [name for name in record.metrics if name.startswith("teacher/")]
    doctor = json.loads(folder.doctor_file.read_text())
    assert doctor["teachers"] == {}
    opened = load_run(folder.path)
    found = evaluate_student(opened, own_images(opened, "test"), latency=False)
    assert found.left_out["teacher/resnet8"] == "Teacher 'resnet8' gives hints alone (head=none)."
    assert opened.sample_weights().unique().tolist() == [1.0]


@pytest.mark.parametrize(
    ("words", "reader"),
    [
        (["loss=[ce,kd]"], "the loss term kd,"),
        (["loss=[ce,hint]", "weighting=confidence"], "the weighting ConfidenceWeighting,"),
        (
            ["method=camkd"],
            "the loss term kd_each, the loss term regression_confidence, the weighting Confid",
        ),
    ],
)
def test_readers_of_logits_refuse_hints_alone_in_the_plan(configure, teachers, tmp_path, words, reader):
    config = configure(*BACKBONE, teachers, "teacher.resnet8.head=none", *words)
    with pytest.raises(UserError, match=rf"(?s)read by {reader}.*teacher.resnet8.head=linear"):
        ready(config, RunFolder(tmp_path / "run"))


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["head=linear", "pretrained=false"], "head=linear: its recipe trains the network with a classifier"),
        (["head=none", "class_map=[1,0,2,3,4,5,6,7,8,9]"], "class_map=.*which head=none does not read"),
        (["head=none", "min_accuracy=0.5"], "min_accuracy=0.5: hints alone have no accuracy"),
        (["head=mlp"], "head='mlp': expected null, none or linear"),
    ],
)
def test_keys_that_do_not_fit_the_head_are_mistakes(configure, words, text):
    with pytest.raises(UserError, match=text):
        check(configure(*BACKBONE, *(f"teacher.resnet8.{word}" for word in words)))
