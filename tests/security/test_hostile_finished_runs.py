"""``config.yaml`` and ``run.json`` of a completed run, damaged or made up, when the run is looked into."""

import copy
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
from amtml_pl.runs.folder import RunFolder
from sealing import change_record, seal_again, write_record

VALUES = nested("../../x", "\0", "x" * 300, "${nothing}", "os.system", keys=["_target_", "path", "stores"])
# Of these a number decides how large a network is built, which is not what is in question here.
NOT_HERE = ("student", "network", "image_size")


@pytest.fixture
def finished(moved, hostile):
    """A completed run, where nothing is watched."""
    shutil.move(moved, hostile / "run")
    return hostile / "run"


def look(folder):
    """All that a notebook asks of a run; each question has an answer or a message."""
    run = outcome(load_run, folder)
    if isinstance(run, UserError):
        return [run]
    questions = (
        lambda: run.data, run.student, lambda: run.teachers, run.teacher_outputs,
        lambda: run.teacher_outputs("val"), run.own_weighting,
        lambda: [teacher.load() for teacher in run.teachers],
    )  # fmt: skip
    return [outcome(question) for question in questions]


def messages(folder):
    return [str(found) for found in look(folder) if isinstance(found, UserError)]


def test_a_whole_run_has_an_answer_to_every_question(finished):
    assert messages(finished) == []


LOSS = "amtml_pl.losses.cross_entropy.CrossEntropy"
CROP = {"_target_": "amtml_pl.data.augment.CropFlip", "padding": 4, "flip": True}
CONFIGURATIONS = {
    "no data": ("data", {"_target_": "amtml_pl.data.module.PackedDataModule"}, "needs the argument"),
    "no loop": ("loop", {}, "loop has no _target_"),
    "a loss as the student": ("student.network", {"_target_": LOSS}, f"network._target_={LOSS} may not be"),
    "another depth": ("student.network.depth", "deep", "student.network.depth='deep': expected int"),
    "a list of weights": ("teacher.resnet8.weights.path", ["x"], r"weights.path=\['x'\]: expected a file"),
    "a NUL": ("teacher.resnet8.weights.path", "\0", "weights.path does not name a file"),
    "no teacher": ("teacher.resnet8", 5, "teacher.resnet8 is not a mapping"),
    "positions": ("data._args_", [1], "data has the key _args_, expected arguments by name"),
    "a part of a call": ("data.augment._partial_", True, "data has the key _partial_"),
    "no constructor": ("data.augment", {"operations": [CROP], "seed": 0}, "data.augment={.*: expected Augm"),
    "a mixed list": ("data.augment.operations", [CROP, 5], "operations mixes nodes with other values"),
}


def change_configuration(folder, change):
    """Replaces the recorded configuration by what a function makes of it, as somebody who seals again."""
    file = folder / "config.yaml"
    tree = change(yaml.load(file.read_text(), yaml.CSafeLoader))
    file.write_text(yaml.dump(tree, Dumper=yaml.CSafeDumper))
    seal_again(folder)


@pytest.mark.parametrize(("place", "value", "said"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_damaged_configuration_is_named(finished, place, value, said):
    change_configuration(finished, lambda tree: with_value(tree, place.split("."), value))
    with pytest.raises(UserError, match=f"config.yaml is damaged: .*{said}"):
        load_run(finished)


def test_a_missing_field_of_a_configuration_is_named(finished):
    change_configuration(finished, lambda tree: without(tree, ["seed"]))
    with pytest.raises(UserError, match=r"config.yaml is damaged: .*seed is missing: expected a whole num"):
        load_run(finished)


EXTRACTOR = {
    "_target_": "torchvision.models.feature_extraction.create_feature_extractor",
    "model": {
        "_target_": "torchvision.models.detection.backbone_utils.BackboneWithFPN",
        "return_layers": {"layer1": "x'); open('canary', 'w') #"},
    },
}
DOWNLOAD = {"_target_": "amtml_pl.data.datasets.download.download", "urls": ["http://x"], "file": "canary"}
PICKLE = "student: !!python/object/apply:os.system ['touch canary']\n"
# What a stranger's configuration would have the reader run, send or write, and what is answered.
HARM = {
    "code in names of modules": (("student.network", EXTRACTOR), "network._target_=.*feature_extraction"),
    "code in names of ours": (
        ("student.network", {
            "_target_": "amtml_pl.models.small_images.adapt_stem", "skip": ["x'); open('canary', 'w') #"],
            "network": {"_target_": "torchvision.models.resnet18", "num_classes": 10},
        }),
        "student.network: skip=.*expected numbers, names",
    ),
    "a function that writes": (("student.network", DOWNLOAD), "student.network._target_=amtml_pl.data"),
    "a teacher that writes": (("teacher.resnet8.network", DOWNLOAD), "resnet8.network._target_="),
    "the environment": (("dataset.source.mirrors", ["http://127.0.0.1:9/${oc.env:HOME}"]), "is an interpol"),
    "a tag": (PICKLE, "has the tag"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), HARM.values(), ids=HARM)
def test_a_hostile_configuration_runs_sends_and_writes_nothing(finished, change, reason):
    file = finished / "config.yaml"
    if isinstance(change, str):
        file.write_text(change + file.read_text().replace("student:", "student_:"))
        seal_again(finished)
    else:
        change_configuration(finished, lambda tree: with_value(tree, change[0].split("."), change[1]))
    with nothing_happens(), pytest.raises(UserError, match=reason):
        load_run(finished)


SOURCES = {
    "download": {"_target_": "amtml_pl.data.datasets.cifar.Cifar10", "root": "x", "mirrors": ["http://x"]},
    "photographs": {"_target_": "amtml_pl.data.datasets.image_folder.ImageFolder", "folder": "/etc"},
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_a_recorded_source_is_not_even_built(finished, hostile, source):
    def change(tree):
        tree["dataset"]["source"], tree["paths"]["data"] = source, str(hostile / "root")
        return tree

    change_configuration(finished, change)
    run = load_run(finished)
    with nothing_happens(), pytest.raises(UserError, match="are not packed in"):
        next(run.images("test"))
    assert not (hostile / "root").exists()


def test_the_weights_of_a_recorded_constructor_are_not_downloaded(finished):
    network = {"_target_": "timm.create_model", "model_name": "resnet18", "pretrained": True}

    def change(tree):
        tree["teacher"]["resnet8"] |= {"pretrained": True, "network": network}
        return tree

    change_configuration(finished, change)
    run = load_run(finished)
    with nothing_happens(), pytest.raises(UserError, match="load_run downloads nothing"):
        run.teachers[1].load()


USE = {"views": 1, "bytes": 1, "teacher_passes": {}}
RECORDS = {
    "null": (None, "does not hold the logits of vgg8_quarter, resnet8"),
    "a list": ([], "cache is a list, expected an object"),
    "numbers": ({**USE, "stores": [5]}, "cache.stores.0 is 5, expected a valid string"),
    "a way out": ({**USE, "stores": ["../../secret"]}, "does not hold the store ../../secret"),
}


@pytest.mark.parametrize(("cache", "said"), RECORDS.values(), ids=RECORDS)
def test_a_record_of_a_cache_that_is_none_is_named(finished, cache, said):
    record = json.loads((finished / "run.json").read_text())
    write_record(finished, {**record, "cache": cache})
    with pytest.raises(UserError, match=said):
        load_run(finished).teacher_outputs()


def test_a_record_and_a_configuration_of_two_runs_are_refused(finished):
    record = json.loads((finished / "run.json").read_text())
    record["teachers"]["another"] = record["teachers"].pop("resnet8")
    record["metrics"] |= {f"teacher/another/{split}/acc": 0.5 for split in ("val", "test")}
    write_record(finished, record)
    with pytest.raises(
        UserError, match=r"are not of one run: their teachers are \['another', 'vgg8_quarter'"
    ):
        load_run(finished)


def test_a_run_folder_does_not_choose_where_an_export_is_written(finished, hostile):
    (hostile / "victim").mkdir()
    (finished / "export").symlink_to(hostile / "victim")
    with pytest.raises(UserError, match="export is a symbolic link"):
        export_student(load_run(finished), "best", "safetensors", command="the command")
    assert not [*(hostile / "victim").iterdir()]


@pytest.mark.slow
@settings(FUZZ, phases=[Phase.generate])  # not smaller and smaller ones, each of which takes a second
@given(data=st.data(), value=VALUES)
@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
def test_a_run_with_anything_in_the_place_of_a_field_is_looked_into_or_refused(finished, name, data, value):
    file = finished / name
    whole = file.read_text()
    tree = yaml.load(whole, yaml.CSafeLoader)
    path = data.draw(st.sampled_from([path for path in places(tree) if path and not {*path} & {*NOT_HERE}]))
    gone = data.draw(st.booleans())
    changed = without(tree, path) if gone else with_value(copy.deepcopy(tree), path, value)
    file.write_text(
        json.dumps(changed) if name == "run.json" else yaml.dump(changed, Dumper=yaml.CSafeDumper)
    )
    record = finished / "run.json"
    before = whole if name == "run.json" else record.read_text()
    if name == "config.yaml" or isinstance(changed, dict):
        change_record(finished, **({} if name == "run.json" else {"files": RunFolder(finished).seal()}))
    try:
        look(finished)
    finally:
        record.write_text(before)
        file.write_text(whole)
