"""Damaged or forged ``config.yaml`` and ``run.json`` of a completed run that is opened."""

import json
import shutil

import pytest
import yaml
from canary import outcome
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from nested import FUZZ, nested, places, with_value, without
from watch import nothing_happens

from amtml_pl import load_run
from amtml_pl.errors import UserError
from amtml_pl.results.export.export import export_student
from sealing import seal_again, write_record

VALUES = nested("../../x", "\0", "x" * 300, "${nothing}", "os.system", keys=["_target_", "path", "stores"])
# Not changed: these determine how large a network is built.
NOT_HERE = ("student", "network", "image_size")


@pytest.fixture
def finished(moved, hostile):
    """Return a completed run in the folder that is not watched."""
    shutil.move(moved, hostile / "run")
    return hostile / "run"


def messages(folder):
    """Return the UserErrors of all that a notebook reads of a run."""
    run = outcome(load_run, folder)
    if isinstance(run, UserError):
        return [run]
    reads = (
        lambda: run.data, run.student, lambda: run.teachers, run.teacher_outputs,
        lambda: run.teacher_outputs("val"), run.own_weighting,
        lambda: [teacher.load() for teacher in run.teachers],
    )  # fmt: skip
    return [found for read in reads if isinstance(found := outcome(read), UserError)]


def test_a_whole_run_is_read(finished):
    assert messages(finished) == []


LOSS = "amtml_pl.losses.ce.CrossEntropy"
CROP = {"_target_": "amtml_pl.data.augment.CropFlip", "padding": 4, "flip": True}
CONFIGURATIONS = {
    "no loop": ("loop", {}, "loop has no _target_"),
    "no seed": ("seed", None, "seed is missing: expected a whole num"),
    "a loss as the student": ("student.network", {"_target_": LOSS}, f"network._target_={LOSS} is not an"),
    "another depth": ("student.network.depth", "deep", "student.network.depth='deep': expected int"),
    "a NUL": ("teacher.resnet8.weights.path", "\0", "weights.path is not the path of a file"),
    "no teacher": ("teacher.resnet8", 5, "teacher.resnet8 is not a mapping"),
    "positions": ("data._args_", [1], "data has the key _args_, which is not allowed"),
    "no constructor": ("data.augment", {"operations": [CROP], "seed": 0}, "data.augment={.*: expected Augm"),
    "a mixed list": (
        "data.augment.operations",
        [CROP, 5],
        "operations mixes entries with and without _target_",
    ),
}


def change_configuration(folder, *changes):
    """Change values by their dotted keys, and seal the run again."""
    file = folder / "config.yaml"
    tree = yaml.load(file.read_text(), yaml.CSafeLoader)
    for key, value in changes:
        tree = with_value(tree, key.split("."), value)
    file.write_text(yaml.dump(tree, Dumper=yaml.CSafeDumper))
    seal_again(folder)


@pytest.mark.parametrize(("key", "value", "reason"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_damaged_configuration_is_named(finished, key, value, reason):
    change_configuration(finished, (key, value))
    with pytest.raises(UserError, match=f"config.yaml is damaged: .*{reason}"):
        load_run(finished)


EXTRACTOR = {
    "_target_": "torchvision.models.feature_extraction.create_feature_extractor",
    "model": {
        "_target_": "torchvision.models.detection.backbone_utils.BackboneWithFPN",
        "return_layers": {"layer1": "x'); open('canary', 'w') #"},
    },
}
PICKLE = "student: !!python/object/apply:os.system ['touch canary']\n"
# A malicious change, and the reason for which it is rejected.
HARM = {
    "code in names of modules": (("student.network", EXTRACTOR), "network._target_=.*feature_extraction"),
    "the environment": (("dataset.source.mirrors", ["http://127.0.0.1:9/${oc.env:HOME}"]), "is an interpol"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), HARM.values(), ids=HARM)
def test_a_malicious_configuration_runs_sends_and_writes_nothing(finished, change, reason):
    change_configuration(finished, change)
    with nothing_happens(), pytest.raises(UserError, match=reason):
        load_run(finished)


def test_a_tag_in_a_configuration_is_rejected(finished):
    file = finished / "config.yaml"
    file.write_text(PICKLE + file.read_text().replace("student:", "student_:"))
    seal_again(finished)
    with nothing_happens(), pytest.raises(UserError, match="has the tag"):
        load_run(finished)


def test_a_recorded_source_is_not_built(finished, hostile):
    source = {"_target_": "amtml_pl.data.datasets.image_folder.ImageFolder", "folder": "/etc"}
    change_configuration(finished, ("dataset.source", source), ("paths.data", str(hostile / "root")))
    run = load_run(finished)
    with nothing_happens(), pytest.raises(UserError, match="The stored images of"):
        next(run.images("test"))
    assert not (hostile / "root").exists()


def test_the_weights_of_a_recorded_constructor_are_not_downloaded(finished):
    network = {"_target_": "timm.create_model", "model_name": "resnet18", "pretrained": True}
    changes = ("teacher.resnet8.pretrained", True), ("teacher.resnet8.network", network)
    change_configuration(finished, *changes)
    run = load_run(finished)
    with nothing_happens(), pytest.raises(UserError, match="does not download pretrained weights"):
        run.teachers[1].load()


USE = {"views": 1, "bytes": 1, "teacher_passes": {}}
RECORDS = {
    "null": (None, "lacks the logits of teacher vgg8_quarter, resnet8"),
    "a list": ([], "cache is a list, expected an object"),
    "a way out": ({**USE, "stores": ["../../secret"]}, "lacks the folder ../../secret"),
}


@pytest.mark.parametrize(("cache", "reason"), RECORDS.values(), ids=RECORDS)
def test_a_damaged_record_of_a_cache_is_named(finished, cache, reason):
    record = json.loads((finished / "run.json").read_text())
    write_record(finished, {**record, "cache": cache})
    with pytest.raises(UserError, match=reason):
        load_run(finished).teacher_outputs()


def test_a_record_and_a_configuration_of_two_runs_are_rejected(finished):
    record = json.loads((finished / "run.json").read_text())
    record["teachers"]["another"] = record["teachers"].pop("resnet8")
    record["metrics"] |= {f"teacher/another/{split}/acc": 0.5 for split in ("val", "test")}
    write_record(finished, record)
    with pytest.raises(UserError, match=r"differ in the teachers .*expected \['another', 'vgg8_quart"):
        load_run(finished)


def test_a_run_folder_does_not_choose_where_an_export_is_written(finished, hostile):
    (hostile / "victim").mkdir()
    (finished / "export").symlink_to(hostile / "victim")
    with pytest.raises(UserError, match="export is a symbolic link"):
        export_student(load_run(finished), "best", "safetensors", command="the command")
    assert not [*(hostile / "victim").iterdir()]


@pytest.mark.slow
def test_a_run_without_any_one_key_of_its_configuration_is_read_or_rejected(finished):
    file = finished / "config.yaml"
    tree = yaml.load(file.read_text(), yaml.CSafeLoader)
    for path in places(tree):
        if path and not {*path} & {*NOT_HERE}:
            file.write_text(json.dumps(without(tree, path)))
            seal_again(finished)
            messages(finished)


@pytest.mark.slow
@settings(FUZZ, phases=[Phase.generate])  # shrinking takes a second per example
@given(data=st.data(), value=VALUES)
def test_a_run_with_any_value_in_its_configuration_is_read_or_rejected(finished, data, value):
    file = finished / "config.yaml"
    whole = file.read_text()
    tree = yaml.load(whole, yaml.CSafeLoader)
    path = data.draw(st.sampled_from([path for path in places(tree) if path and not {*path} & {*NOT_HERE}]))
    changed = without(tree, path) if data.draw(st.booleans()) else with_value(tree, path, value)
    file.write_text(json.dumps(changed))  # which is YAML too
    seal_again(finished)
    try:
        messages(finished)
    finally:
        file.write_text(whole)
