"""The student of a finished run as a file that other runtimes load."""

import json
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import amtml_pl
from amtml_pl import export
from amtml_pl.data.image_files import read_batches
from amtml_pl.errors import UserError
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.results.export.card import ModelCard
from amtml_pl.results.export.export import export_student, targets
from amtml_pl.results.export.formats import FORMATS, open_exported
from amtml_pl.results.export.parity import MOST_DIFFERENCE
from amtml_pl.results.export.record import add_entry, read_entries
from amtml_pl.results.predict import Predictor
from amtml_pl.results.run import load_run
from rounding import images_of, undecided
from sealing import seal_again, write_record

pytestmark = pytest.mark.usefixtures("short_measurements")

FILES = {name: f"student{made.suffix}" for name, made in FORMATS.items()}
DIGITS = tuple(map(str, range(10)))


@pytest.mark.numbers
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_logits_of_the_checkpoint_in_batches_of_any_size(exported, name):
    run = load_run(exported)
    images = images_of(run, "test")
    expected = run.student()(images).logits
    forward = open_exported(exported / "export" / FILES[name]).forward
    for size in (1, 7, len(images)):
        assert (forward(images[:size]) - expected[:size]).abs().max() <= MOST_DIFFERENCE


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def share_that_could_change(student, images):
    """Return the share of images to which logits that differ by rounding may give another class."""
    return float(undecided(student(images).logits, MOST_DIFFERENCE).double().mean())


@pytest.mark.parametrize("name", FORMATS)
def test_metadata_have_the_classes_the_input_and_the_origin_of_the_student(exported, name):
    file = exported / "export" / FILES[name]
    if name == "onnx":
        found = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    else:
        with safe_open(file, framework="pt") as content:
            found = content.metadata()
    record = json.loads((exported / "run.json").read_text())
    assert tuple(json.loads(found["classes"])) == DIGITS
    pixels = "RGB in [0, 1], not" if name == "onnx" else "normalised: (RGB in [0, 1] - mean) / std"
    assert f"float32 (B, 3, 32, 32), {pixels}" in found["input"]
    assert found["data_digest"] == record["dataset"]["digest"]
    assert found["commit"] == (record["git"] or {}).get("commit", "")
    assert json.loads(found["metrics"]) == {key: record["metrics"][key] for key in ("val/acc", "test/acc")}
    card = ModelCard.read(found, exported)
    assert {**card.texts(), "input": found["input"]}.items() <= found.items()


@pytest.mark.numbers
def test_the_command_prints_and_records_parity_and_latency(moved, command):
    printed = command(export.main, f"run={moved}", "format=safetensors", "checkpoint=last")
    file = moved / "export" / "student-last.safetensors"
    entries = json.loads((moved / "export" / "export.json").read_text())
    assert entries.keys() == {"export/student-last.safetensors"}
    entry = entries["export/student-last.safetensors"]
    assert entry["file"] == "export/student-last.safetensors"
    assert entry["format"] == "safetensors"
    assert entry["checkpoint"] == "last"
    assert entry["parity"]["max_abs_logit_difference"] <= MOST_DIFFERENCE
    run = load_run(moved)
    within = share_that_could_change(run.student("last"), images_of(run, "val"))
    assert entry["parity"]["same_class"] == pytest.approx(1, abs=within)
    for when in ("before", "after"):
        assert entry["latency"][when]["ms_per_image"] > 0
        assert f"{entry['latency'][when]['ms_per_image']:.3g} ms" in printed
    assert f"the same class on {entry['parity']['same_class']:.4f} of 60 validation images" in printed
    assert entry["bytes"] == file.stat().st_size
    metrics = json.loads((moved / "run.json").read_text())["metrics"]
    expected = {"val/acc": metrics["val/acc_last"], "test/acc": metrics["test/acc_last"]}
    assert open_exported(file).card.metrics == expected
    command(export.main, f"run={moved}", "format=safetensors", f"out={moved.parent}/elsewhere.safetensors")
    entries = json.loads((moved / "export" / "export.json").read_text())
    assert entries.keys() == {"export/student-last.safetensors", str(moved.parent / "elsewhere.safetensors")}
    assert [file.name for file in moved.rglob(".*student*")] == []


@pytest.mark.parametrize("name", FILES.values())
def test_no_file_names_the_folders_of_the_code(exported, name):
    content = (exported / "export" / name).read_bytes()
    for folder in (Path(amtml_pl.__file__).parent, Path(torch.__file__).parent, Path(__file__).parent):
        assert str(folder).encode() not in content


@pytest.mark.numbers
def test_the_bare_network_takes_the_weights_of_safetensors_and_images_as_documented(exported):
    file = exported / "export" / "student.safetensors"
    kept, own = load_file(file), load_file(exported / "student.safetensors")
    assert kept.keys() == own.keys()
    assert all(torch.equal(kept[name], tensor) for name, tensor in own.items())
    with safe_open(file, framework="pt") as content:
        metadata = content.metadata()
    built = json.loads(metadata["network"])
    assert built.pop("_target_").endswith(".CifarResNet")
    network = CifarResNet(**built).eval()
    network.load_state_dict(load_file(file))
    run = load_run(exported)
    images = images_of(run, "test")
    mean, std = (torch.tensor(json.loads(metadata[name])).view(3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        expected = run.student()(images).logits
        assert (network((images - mean) / std) - expected).abs().max() <= MOST_DIFFERENCE
        assert (network(images) - expected).abs().max() > 0.01


def test_random_images_replace_those_that_are_not_on_this_machine(moved, command):
    record = json.loads((moved / "run.json").read_text())
    record["dataset"]["digest"] = "0" * 64
    write_record(moved, record)
    printed = command(export.main, f"run={moved}", "format=safetensors")
    assert "random images replaced the validation images" in printed
    assert "The stored images of" in printed
    entries = json.loads((moved / "export" / "export.json").read_text())
    assert not entries["export/student.safetensors"]["parity"]["real"]


def test_a_file_with_other_logits_is_not_written(exported, command, monkeypatch):
    written = FORMATS["safetensors"]

    def write_shifted(student, card, file):
        student.student.network.fc.bias += 0.01
        written.write(student, card, file)

    monkeypatch.setitem(FORMATS, "safetensors", replace(written, write=write_shifted))
    before = contents(exported / "export")
    printed = command(export.main, f"run={exported}", "format=safetensors", status=2)
    assert (
        "different logits on 60 validation images (got max |Δlogit| 0.01, expected at most 0.0001)" in printed
    )
    assert contents(exported / "export") == before


class Choosing(CifarResNet):
    """A network that takes another branch for some images, which no graph can."""

    def forward(self, images):
        logits = super().forward(images)
        return logits if float(images.mean()) < 1e6 else -logits


def test_a_network_without_a_graph_is_refused_by_name_and_fits_safetensors(moved, command, monkeypatch):
    monkeypatch.setenv("AMTML_TARGETS", "test_export.Choosing")
    config = OmegaConf.load(moved / "config.yaml")
    config.student.network["_target_"] = "test_export.Choosing"
    OmegaConf.save(config, moved / "config.yaml")
    seal_again(moved)
    printed = command(export.main, f"run={moved}", status=2)
    assert "test_export.Choosing cannot be exported as onnx" in printed
    assert "format=safetensors" in printed
    assert not (moved / "export").exists()
    command(export.main, f"run={moved}", "format=safetensors")


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["run={tmp}/nowhere"], "nowhere does not exist, or is not a folder"),
        (["run={moved}", "format=tflite"], "format='tflite': expected onnx or"),
        (["run={moved}", "out={moved}/export/model.bin"], "has a wrong suffix (expected .onnx"),
        (["run={moved}", "out={moved}/run.json/x.onnx"], "x.onnx cannot be written"),
    ],
)
def test_a_mistake_is_one_message_and_overwrites_nothing(moved, command, tmp_path, words, printed):
    before = contents(moved)
    typed = [word.format(moved=moved, tmp=tmp_path) for word in words]
    assert printed in command(export.main, *typed, status=2)
    assert contents(moved) == before


@pytest.mark.parametrize(
    ("damaged", "printed"),
    [("checkpoints/best.ckpt", "best.ckpt"), ("export/export.json", "export.json is damaged")],
)
def test_damage_is_named_before_anything_is_written(exported, command, damaged, printed):
    (exported / damaged).write_text("{")
    before = contents(exported / "export")
    assert printed in command(export.main, f"run={exported}", status=2)
    assert contents(exported / "export") == before


def test_concurrent_exports_are_all_recorded(exported, tmp_path):
    [entry, *_] = read_entries(exported / "export" / "export.json").values()
    record = tmp_path / "export" / "export.json"
    names = [f"{number}.onnx" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: add_entry(record, entry.replaced(file=name)), names))
    assert read_entries(record) == {name: entry.replaced(file=name) for name in names}


def test_a_multirun_is_refused_and_leaves_nothing_behind(moved, command, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    printed = command(export.main, "-m", f"run={moved},{moved}", status=2)
    assert "--multirun is not supported by this command" in printed
    assert [*(tmp_path / "here").iterdir()] == []


def test_a_read_only_run_is_exported_elsewhere_without_an_entry(moved, command, tmp_path):
    """A file takes the place of the folder: the tests' user has every permission."""
    (moved / "export").write_text("in the way")
    words = (f"run={moved}", "format=safetensors")
    assert "student.safetensors cannot be written" in command(export.main, *words, status=2)
    printed = command(export.main, *words, f"out={tmp_path}/new/mine.safetensors")
    assert "the run's export.json has no entry" in printed
    assert open_exported(tmp_path / "new" / "mine.safetensors").card.classes == DIGITS
    assert (moved / "export").read_text() == "in the way"


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_replaces_nothing_but_an_export_of_the_same_format(exported, tmp_path, name):
    others = [exported / "export" / file for other, file in FILES.items() if other != name]
    others += [exported / file for file in ("checkpoints/best.ckpt", "student.safetensors", "run.json")]
    run, target = load_run(exported), tmp_path / FILES[name]
    for file in others:
        target.write_bytes(file.read_bytes())
        with pytest.raises(UserError, match=rf"{FILES[name]} is not a student exported as {name}"):
            targets(run, "best", name, str(target))
    target.write_bytes((exported / "export" / FILES[name]).read_bytes())
    assert targets(run, "best", name, str(target))[0] == target


def test_a_missing_package_is_named_with_the_command_that_installs_it(moved, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    printed = command(export.main, f"run={moved}", status=2)
    assert "The package 'onnxscript' is not installed" in printed
    assert "pip install 'amtml-pl[export]'" in printed
    command(export.main, f"run={moved}", "format=safetensors")


STUDENTS = ("resnet8_thin", "vgg8_quarter", "mobilenet_v2", "shufflenet_v2")


@pytest.mark.numbers
@pytest.mark.slow
@pytest.mark.parametrize("student", STUDENTS)
def test_every_family_of_networks_is_exported_with_parity(run, student):
    """Trained for a step, so that no batch norm has the statistics that it was made with.

    To ONNX, where it is translated the most; the first one to every format.
    """
    _, folder = run("experiment=digits", "method=ce", "trainer=cpu", "trainer.max_epochs=1", "logger=[]",
                    "data.train_size=32", "data.val_size=16", f"student={student}", "doctor=false",
                    "dataset.source.test_fraction=0.05")  # fmt: skip
    exported = load_run(folder.path)
    within = share_that_could_change(exported.student(), images_of(exported, "val"))
    for name in FORMATS if student == STUDENTS[0] else ["onnx"]:
        written = export_student(exported, "best", name, command="the command")
        assert not written.images.missing
        assert written.entry.parity.max_abs_logit_difference <= MOST_DIFFERENCE
        assert written.entry.parity.same_class == pytest.approx(1, abs=within)


def test_the_code_of_the_page_predicts_what_the_command_predicts(exported, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parent.parent / "docs" / "export.md").read_text()
    [code] = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    shutil.copy(exported / "export" / "student.onnx", tmp_path)
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((90, 60)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    made = {}
    exec(code, made)  # noqa: S102
    predictor = Predictor(Path("student.onnx"))
    [expected] = read_batches([Path("photo.jpg")], predictor.image_size)
    assert np.allclose(made["images"], expected.numpy())
    assert capsys.readouterr().out.strip() in predictor.classes
