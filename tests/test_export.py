"""The export of a finished run's student for other runtimes."""

import json
import math
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import amtml_pl
from amtml_pl import export
from amtml_pl.errors import UserError
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.results.evaluation.latency import Speed
from amtml_pl.results.export.export import Export, card_of_run
from amtml_pl.results.export.formats.kinds import KINDS, open_exported
from amtml_pl.results.export.formats.model_card import ModelCard
from amtml_pl.results.export.formats.student import StudentLogits
from amtml_pl.results.export.parity import MOST_DIFFERENCE, compare, parity_images, refuse_ruined
from amtml_pl.results.export.record import (
    BeforeAndAfter,
    BothLatencies,
    ExportRecord,
    Parity,
    add_entry,
    read_entries,
)  # fmt: skip
from amtml_pl.results.run import load_run
from rounding import images_of, undecided
from sealing import seal_again, write_record

FILES = {kind: f"student{made.suffix}" for kind, made in KINDS.items()}
DIGITS = tuple(map(str, range(10)))


@pytest.mark.numbers
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_logits_of_the_checkpoint_in_batches_of_any_size(exported, kind):
    run = load_run(exported)
    images = images_of(run, "test")
    expected = run.student()(images).logits
    forward = open_exported(exported / "export" / FILES[kind], trust=True).forward
    for size in (1, 7, len(images)):
        assert (forward(images[:size]) - expected[:size]).abs().max() <= MOST_DIFFERENCE


@pytest.mark.numbers
def test_onnx_runtime_alone_gives_the_accuracy_of_the_run(exported):
    run = load_run(exported)
    session = onnxruntime.InferenceSession(exported / "export" / "student.onnx")
    [logits] = session.run(["logits"], {"images": images_of(run, "test").numpy()})
    split = run.split("test")
    hits = torch.from_numpy(logits).argmax(1) == split.stored.labels[split.rows]
    within = 1e-6 + share_that_could_change(run.student(), images_of(run, "test"))
    assert hits.double().mean() == pytest.approx(run.record.metrics["test/acc"], abs=within)


def share_that_could_change(student, images):
    """Return the share of images to which logits that differ by rounding may give another class."""
    return float(undecided(student(images).logits, MOST_DIFFERENCE).double().mean())


@pytest.mark.slow
def test_torch_loads_its_own_format_without_this_package(exported):
    code = (
        "import sys, torch; student = torch.export.load(sys.argv[1]).module(); "
        "assert not any(name.startswith('amtml') for name in sys.modules); "
        "print(tuple(student(torch.zeros(3, 3, 32, 32)).shape))"
    )
    file = exported / "export" / "student.pt2"
    words = [sys.executable, "-W", "ignore", "-c", code, file]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip() == "(3, 10)"


def test_the_metadata_hold_the_classes_the_input_and_the_origin(exported):
    def metadata(name):
        file = exported / "export" / name
        if name.endswith(".onnx"):
            return {entry.key: entry.value for entry in onnx.load(file).metadata_props}
        if name.endswith(".safetensors"):
            with safe_open(file, framework="pt") as content:
                return content.metadata()
        with zipfile.ZipFile(file) as archive:
            [member] = [member for member in archive.namelist() if member.endswith("extra/amtml_pl.json")]
            return json.loads(archive.read(member))

    record = json.loads((exported / "run.json").read_text())
    for name in (*FILES.values(), "student.int8.onnx"):
        found = metadata(name)
        assert tuple(json.loads(found["classes"])) == DIGITS
        taken = "normalised: (RGB in [0, 1] - mean) / std" if "safetensors" in name else "RGB in [0, 1], not"
        assert f"float32 (B, 3, 32, 32), {taken}" in found["input"]
        assert found["data_digest"] == record["dataset"]["digest"]
        assert found["commit"] == (record["git"] or {}).get("commit", "")
        metrics = json.loads(found["metrics"])
        if "int8" in name:
            entry = json.loads((exported / "export" / "export.json").read_text())[f"export/{name}"]
            assert metrics.pop("val/acc_int8") == entry["parity"]["val/acc"]["after"]
        assert metrics == {key: record["metrics"][key] for key in ("val/acc", "test/acc")}
        assert found["precision"] == ("int8" if "int8" in name else "float32")
        card = ModelCard.read(found, exported)
        assert {**card.texts(), "input": found["input"]}.items() <= found.items()


@pytest.mark.numbers
def test_int8_is_smaller_and_records_its_accuracy_on_real_images(exported):
    entry = json.loads((exported / "export" / "export.json").read_text())["export/student.int8.onnx"]
    parity = entry["parity"]
    assert parity["real"]
    assert parity["images"] == 60
    record = json.loads((exported / "run.json").read_text())
    run = load_run(exported)
    within = 1e-6 + share_that_could_change(run.student(), images_of(run, "val"))
    assert parity["val/acc"]["before"] == pytest.approx(record["metrics"]["val/acc"], abs=within)
    opened = open_exported(exported / "export" / "student.int8.onnx", trust=False)
    again = compare(lambda images: run.student()(images).logits, opened.forward, parity_images(run))
    assert parity["val/acc"]["after"] == again.val_acc.after
    assert parity["max_abs_logit_difference"] == pytest.approx(again.max_abs_logit_difference, rel=1e-4)
    assert again.max_abs_logit_difference > MOST_DIFFERENCE
    model = onnx.load(exported / "export" / "student.int8.onnx")
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    sizes = [(exported / "export" / name).stat().st_size for name in ("student.int8.onnx", "student.onnx")]
    assert sizes[0] < sizes[1]


@pytest.mark.numbers
@pytest.mark.slow
def test_a_student_that_8_bits_ruin_is_not_published(learnt, command):
    """Scale one channel of every block by 300 and back: the same function, with ruinous ranges."""
    file = learnt / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    weights = checkpoint["state_dict"]
    scaled = [name for name in weights if name.endswith("bn1.weight") and ".layer" in name]
    assert scaled
    for name in scaled:
        block = name.removesuffix("bn1.weight")
        weights[name][0] *= 300
        weights[f"{block}bn1.bias"][0] *= 300
        weights[f"{block}conv2.weight"][:, 0] /= 300
    command(export.main, f"run={learnt}", "int8=true")
    before = contents(learnt / "export")
    torch.save(checkpoint, file)
    seal_again(learnt)
    output = command(export.main, f"run={learnt}", "int8=true", status=2)
    assert re.search(
        r"falls from 0\.9\d* to 0\.[0-6]\d*, expected to fall by at most int8_drop=0\.02", output
    )
    assert "Nothing was published" in output
    assert "int8=false; or int8_drop=0." in output
    assert contents(learnt / "export") == before


@pytest.mark.parametrize(
    ("difference", "before", "after", "output"),
    [
        (math.nan, 0.1, 0.1, "gives logits that are no finite numbers, on 60 validation images"),
        (0.5, 0.95, 0.92, "falls from 0.9500 to 0.9200"),
        (0.5, 1.0, 0.98, None),
        (0.5, 0.9, 0.95, None),
    ],
)
def test_8_bits_may_lose_as_much_accuracy_as_int8_drop(moved, difference, before, after, output):
    run, accuracy = load_run(moved), BeforeAndAfter(before=before, after=after)
    found = Parity(
        images=60, real=True, max_abs_logit_difference=difference, same_class=1.0, val_acc=accuracy
    )
    with pytest.raises(UserError, match=output) if output else nullcontext():
        refuse_ruined(found, parity_images(run), 0.02)


@pytest.mark.numbers
def test_the_command_prints_and_records_parity_and_latency(moved, command):
    output = command(export.main, f"run={moved}", "format=torch_export", "checkpoint=last")
    entries = json.loads((moved / "export" / "export.json").read_text())
    assert entries.keys() == {"export/student-last.pt2"}
    entry = entries["export/student-last.pt2"]
    assert entry["file"] == "export/student-last.pt2"
    assert entry["format"] == "torch_export"
    assert entry["checkpoint"] == "last"
    assert entry["parity"]["max_abs_logit_difference"] <= MOST_DIFFERENCE
    run = load_run(moved)
    within = share_that_could_change(run.student("last"), images_of(run, "val"))
    assert entry["parity"]["same_class"] == pytest.approx(1, abs=within)
    for when in ("before", "after"):
        assert entry["latency"][when]["ms_per_image"] > 0
        assert f"{entry['latency'][when]['ms_per_image']:.3g} ms" in output
    assert f"the same class on {entry['parity']['same_class']:.4f} of 60 validation images" in output
    assert entry["bytes"] == (moved / "export" / "student-last.pt2").stat().st_size
    card = open_exported(moved / "export" / "student-last.pt2", trust=True).card
    metrics = json.loads((moved / "run.json").read_text())["metrics"]
    assert card.metrics == {"val/acc": metrics["val/acc_last"], "test/acc": metrics["test/acc_last"]}
    command(export.main, f"run={moved}", "format=safetensors", f"out={moved.parent}/elsewhere.safetensors")
    entries = json.loads((moved / "export" / "export.json").read_text())
    assert entries.keys() == {"export/student-last.pt2", str(moved.parent / "elsewhere.safetensors")}
    assert [file.name for file in moved.rglob(".*student*")] == []


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind == "onnx" else []) for kind in KINDS]
)
def test_a_full_disk_is_an_error_and_not_the_end_of_the_process(moved, kind):
    run = load_run(moved)
    with pytest.raises(OSError, match="No space left"):
        KINDS[kind].write(StudentLogits(run.student()), card_of_run(run, "best"), Path("/dev/full"))


@pytest.mark.parametrize("name", [*FILES.values(), "student.int8.onnx"])
def test_no_file_contains_paths_of_this_machine(exported, name):
    file = exported / "export" / name
    contents = [file.read_bytes()]
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            contents += [archive.read(member) for member in archive.namelist()]
    for folder in (Path(amtml_pl.__file__).parent, Path(torch.__file__).parent, Path(__file__).parent):
        assert not any(str(folder).encode() in content for content in contents)


@pytest.mark.numbers
def test_the_bare_network_takes_the_weights_of_safetensors_and_images_as_the_file_says(exported):
    file = exported / "export" / "student.safetensors"
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


def test_where_the_data_are_not_the_runs_random_images_stand_in_and_int8_is_refused(moved, command):
    record = json.loads((moved / "run.json").read_text())
    record["dataset"]["digest"] = "0" * 64
    write_record(moved, record)
    output = command(export.main, f"run={moved}", "format=safetensors")
    assert "random images stand in for real ones" in output
    assert "are not packed in" in output
    entries = json.loads((moved / "export" / "export.json").read_text())
    parity = entries["export/student.safetensors"]["parity"]
    assert not parity["real"]
    assert parity["val/acc"] is None
    output = command(export.main, f"run={moved}", "int8=true", status=2)
    assert "int8=true takes real images" in output
    assert not (moved / "export" / "student.int8.onnx").exists()


DISAGREEING = """
import torch
from amtml_pl.models.cifar_resnet import CifarResNet

class Shifty(CifarResNet):
    '''Gives other logits to a tracer and to an exporter than in use.'''

    def forward(self, images):
        logits = super().forward(images)
        if torch.jit.is_tracing() or torch.compiler.is_exporting():
            return logits + 0.01
        return logits

class Choosing(CifarResNet):
    '''Branches on the values of its images, which a graph cannot.'''

    def forward(self, images):
        logits = super().forward(images)
        return logits if float(images.mean()) < 1e6 else -logits
"""


@pytest.fixture
def with_network(moved, tmp_path, monkeypatch):
    """Return a function that gives the finished run another class for its network."""
    (tmp_path / "lab_networks.py").write_text(DISAGREEING)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AMTML_TARGETS", "lab_networks.Shifty,lab_networks.Choosing")

    def made(name):
        file = moved / "config.yaml"
        text = file.read_text()
        assert "_target_: amtml_pl.models.cifar_resnet.CifarResNet" in text
        node, own = "amtml_pl.models.cifar_resnet.CifarResNet", f"lab_networks.{name}"
        start = text.index("student:")
        file.write_text(text[:start] + text[start:].replace(node, own, 1))
        seal_again(moved)
        return moved

    return made


def test_a_graph_that_gives_other_logits_is_not_published(with_network, exported, command):
    moved, before = with_network("Shifty"), contents(exported / "export")
    output = command(export.main, f"run={moved}", "format=torch_export", status=2)
    assert "does not give what the checkpoint gives: max |Δlogit| is 0.01 on 60 validation images" in output
    assert "expected at most 0.0001. Nothing was published" in output
    assert contents(moved / "export") == before


def test_a_network_that_graphs_cannot_hold_is_exported_as_safetensors_alone(with_network, command):
    moved = with_network("Choosing")
    output = command(export.main, f"run={moved}", "format=torch_export", status=2)
    assert "lab_networks.Choosing cannot be exported as torch_export" in output
    assert "format=safetensors" in output
    assert not (moved / "export").exists()
    command(export.main, f"run={moved}", "format=safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "run is missing: expected a folder that amtml_pl.train printed"),
        (["run={tmp}/nowhere"], "nowhere is not a folder"),
        (["run={tmp}"], "is not the folder of a run"),
        (["run={moved}", "format=tflite"], "format='tflite': expected onnx, torch_export or"),
        (["run={moved}", "format=torch_export", "int8=true"], "only ONNX is written in 8 bits"),
        (["run={moved}", "out={moved}/export/model.bin"], "has a name that ends in .onnx"),
        (["run={moved}", "out={moved}/run.json/x.onnx"], "x.onnx cannot be written"),
        (
            ["run={moved}", "format=safetensors", "out={moved}/student.safetensors"],
            "student.safetensors is not a student exported as safetensors, and is left as it is",
        ),
        (["run={moved}", "formt=onnx"], "did you mean 'format'?"),
    ],
)
def test_a_mistake_overwrites_nothing(moved, command, tmp_path, words, message):
    before = contents(moved)
    typed = [word.format(moved=moved, tmp=tmp_path) for word in words]
    assert message in command(export.main, *typed, status=2)
    assert contents(moved) == before


@pytest.mark.parametrize(
    ("damaged", "output"),
    [("checkpoints/best.ckpt", "best.ckpt"), ("export/export.json", "export.json is damaged")],
)
def test_damage_is_named_before_anything_is_written(exported, command, damaged, output):
    (exported / damaged).write_text("{")
    before = contents(exported / "export")
    assert output in command(export.main, f"run={exported}", status=2)
    assert contents(exported / "export") == before


SPEED = Speed(ms_per_image=1.0, spread=0.1, repetitions=9)
ENTRY = ExportRecord(
    format="onnx", file="x.onnx", checkpoint="best", precision="float32",
    parity=Parity(images=1, real=False, max_abs_logit_difference=0.0, same_class=1.0),
    bytes=1, sha256="0", latency=BothLatencies(cpu="a", threads=1, batch=1, before=SPEED, after=SPEED),
    command="c", git=None, versions={},
)  # fmt: skip


def test_exports_that_end_together_are_all_recorded(tmp_path):
    record = tmp_path / "export" / "export.json"
    names = [f"{number}.onnx" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: add_entry(record, ENTRY.replaced(file=name)), names))
    assert read_entries(record) == {name: ENTRY.replaced(file=name) for name in names}


def test_a_failure_in_8_bits_alone_suggests_int8_false(moved, tmp_path):
    run = load_run(moved)
    (tmp_path / "student.onnx").write_bytes(b"no graph")
    made, card = Export(run, "best", "onnx", int8=True), card_of_run(run, "best")
    with pytest.raises(UserError, match="cannot be exported as onnx in 8 bits") as refused:
        made.write_int8(tmp_path / "student.onnx", card, lambda images: images, parity_images(run))
    assert refused.value.fix == "int8=false"


def test_a_multirun_is_refused_and_leaves_nothing_behind(moved, command, monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    output = command(export.main, "-m", f"run={moved},{moved}", status=2)
    assert "--multirun is not supported" in output
    assert [*(tmp_path / "here").iterdir()] == []


def test_a_run_that_cannot_be_written_to_is_exported_elsewhere_without_an_entry(moved, command, tmp_path):
    (moved / "export").write_text("in the way")
    words = (f"run={moved}", "format=safetensors")
    assert "student.safetensors cannot be written" in command(export.main, *words, status=2)
    output = command(export.main, *words, f"out={tmp_path}/new/mine.safetensors")
    assert "no entry in the run's export.json" in output
    assert open_exported(tmp_path / "new" / "mine.safetensors", trust=False).card.classes == DIGITS
    assert (moved / "export").read_text() == "in the way"


@pytest.mark.parametrize("kind", KINDS)
def test_only_an_export_of_the_same_kind_gives_its_place_to_an_export(exported, tmp_path, kind):
    others = [exported / "export" / name for other, name in FILES.items() if other != kind]
    others += [exported / name for name in ("checkpoints/best.ckpt", "student.safetensors", "run.json")]
    for file in others:
        named = tmp_path / FILES[kind]
        named.write_bytes(file.read_bytes())
        with pytest.raises(UserError, match=rf"{FILES[kind]} is not a student exported as {kind}"):
            Export(load_run(exported), "best", kind, int8=False, out=str(named))
    named.write_bytes((exported / "export" / FILES[kind]).read_bytes())
    assert Export(load_run(exported), "best", kind, int8=False, out=str(named)).file == named


def test_a_missing_package_is_named_with_the_command_that_brings_it(moved, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    output = command(export.main, f"run={moved}", status=2)
    assert "The package 'onnxscript' is not installed" in output
    assert "pip install 'amtml-pl[export]'" in output
    command(export.main, f"run={moved}", "format=safetensors")


STUDENTS = ("resnet8_thin", "vgg8_quarter", "mobilenet_v2", "shufflenet_v2")


@pytest.mark.numbers
@pytest.mark.slow
@pytest.mark.parametrize("student", STUDENTS)
def test_every_family_of_networks_is_exported_with_parity(run, student):
    """One step has changed every batch norm; the first network is exported to every format."""
    _, folder = run("experiment=digits", "method=ce", "trainer=cpu", "trainer.max_epochs=1", "logger=[]",
                    "data.train_size=32", "data.val_size=16", f"student={student}", "doctor=false",
                    "dataset.source.test_fraction=0.05")  # fmt: skip
    exported = load_run(folder.path)
    within = share_that_could_change(exported.student(), images_of(exported, "val"))
    for kind in KINDS if student == STUDENTS[0] else ["onnx"]:
        entry, shown = Export(exported, "best", kind, int8=False).write("the command")
        assert not shown.lacking
        assert entry.parity.max_abs_logit_difference <= MOST_DIFFERENCE
        assert entry.parity.same_class == pytest.approx(1, abs=within)


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
