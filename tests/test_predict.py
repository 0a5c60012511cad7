"""The classes that an exported student or a run predicts for image files."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from amtml_pl import predict
from amtml_pl.data import image_files
from amtml_pl.data.image_files import read_batches
from amtml_pl.errors import UserError
from amtml_pl.results.export.formats import FORMATS
from amtml_pl.results.export.parity import MOST_DIFFERENCE
from amtml_pl.results.run import load_run
from rounding import images_of, undecided

FILES = {kind: f"export/student{made.suffix}" for kind, made in FORMATS.items()}
COUNT = 40


@pytest.fixture
def pictures(exported, tmp_path):
    """Write the first test images as files, some of them in a subfolder."""
    split = load_run(exported).split("test")
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number in range(COUNT):
        pixels = split.stored.images[split.rows[number]].permute(1, 2, 0).numpy()
        name = f"{number:03d}.png" if number < COUNT // 2 else f"more/{number:03d}.png"
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def rows(file):
    with file.open(newline="") as lines:
        return [*csv.DictReader(lines)]


@pytest.mark.numbers
@pytest.mark.parametrize("model", ["", *FILES.values()])
def test_files_have_the_probabilities_of_the_checkpoint(exported, pictures, command, tmp_path, model):
    words = (f"model={exported / model}", f"images={pictures}", f"out={tmp_path}/found/predictions.csv")
    printed = command(predict.main, *words, "top=2")
    run = load_run(exported)
    logits = run.student()(images_of(run, "test")[:COUNT]).logits
    expected, decided = logits.softmax(1).topk(2), ~undecided(logits, MOST_DIFFERENCE)
    assert decided.any()
    found = rows(tmp_path / "found" / "predictions.csv")
    assert [*found[0]] == ["file", "class", "probability", "class_2", "probability_2"]
    assert [row["file"] for row in found] == sorted(map(str, pictures.rglob("*.png")))
    for row, k in zip(itertools.compress(found, decided), expected.indices[decided, 0], strict=True):
        assert row["class"] == run.data.classes[k]
    for column, values in zip(("probability", "probability_2"), expected.values.T.tolist(), strict=True):
        assert [float(row[column]) for row in found] == pytest.approx(values, abs=MOST_DIFFERENCE / 2 + 1e-6)
    printed = [line.split()[:3] for line in printed.splitlines()]
    for row in found:
        assert [row["file"], row["class"], f"{float(row['probability']):.4f}"] in printed


@pytest.mark.numbers
def test_the_last_epoch_of_a_run_predicts(exported, pictures, command, tmp_path):
    words = (f"model={exported}", f"images={pictures}/000.png", "checkpoint=last", f"out={tmp_path}/p.csv")
    command(predict.main, *words)
    run = load_run(exported)
    expected = run.student("last")(images_of(run, "test")[:1]).logits.softmax(1).max()
    assert float(rows(tmp_path / "p.csv")[0]["probability"]) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize(
    ("named", "count"),
    [
        ("images={0}", 40),
        ("images={0}/001.png", 1),
        ("images={0}/00*.png", 10),
        ("images={0}/**", 40),
        ("images=[{0}/001.png,{0}/more,{0}/*.png]", 40),
    ],
)
def test_images_are_named_by_file_folder_or_pattern(exported, pictures, command, tmp_path, named, count):
    model = exported / "export" / "student.onnx"
    command(predict.main, f"model={model}", named.format(pictures), f"out={tmp_path}/p.csv", "top=20")
    found = rows(tmp_path / "p.csv")
    assert len({row["file"] for row in found}) == len(found) == count
    total = sum(float(value) for name, value in found[0].items() if name.startswith("probability"))
    assert total == pytest.approx(1, abs=1e-5)


def test_images_of_another_size_are_scaled_as_the_image_folder_scales_them(exported, tmp_path):
    from amtml_pl.data.datasets.image_folder import ImageFolder

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
        for number, size in enumerate([(50, 41), (20, 64), (32, 32)]):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / "cat" / f"{number}.png")
    expected = ImageFolder(tmp_path, image_size=32).read("test").images / torch.full((), 255.0)
    [found] = read_batches(sorted((tmp_path / "test" / "cat").iterdir()), 32)
    assert torch.equal(found, expected)


def test_unreadable_files_are_counted_over_all_before_the_first_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "BATCH", 2)
    files = [tmp_path / f"{number}.png" for number in range(7)]
    for file in files:
        Image.fromarray(np.full((8, 8, 3), int(file.stem), dtype=np.uint8)).save(file)
    batches = [*read_batches(files, 8)]
    assert [len(batch) for batch in batches] == [2, 2, 2, 1]
    assert torch.equal(torch.cat(batches)[:, 0, 0, 0] * 255, torch.arange(7.0))
    for bad in (files[3], files[6]):
        bad.write_bytes(bad.read_bytes()[:40])
    with pytest.raises(UserError, match=r"2 of 7 images.*3\.png.*6\.png"):
        next(read_batches(files, 8))


def test_a_file_name_that_is_not_utf_8_is_written_unchanged(exported, pictures, command, tmp_path):
    odd = tmp_path / "odd"
    odd.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(pictures / "000.png", odd / name)
    words = (f"model={exported}/{FILES['onnx']}", f"images={odd}", f"out={tmp_path}/odd.csv")
    for _ in range(2):  # the second replaces the first
        command(predict.main, *words)
    assert b"caf\xe9.png," in (tmp_path / "odd.csv").read_bytes()


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["images={pictures}"], "model is missing: expected an exported student"),
        (["model={tmp}/nowhere", "images={pictures}"], "nowhere does not exist"),
        (["model={tmp}", "images={pictures}"], "use a run folder, such as"),
        (["model={run}/run.json", "images={pictures}"], "run.json is not an exported student"),
        (
            ["model={run}/checkpoints/best.ckpt", "images={pictures}"],
            "an archive of torch.save or torch.export",
        ),
        (["model={run}/student.safetensors", "images={pictures}"], "were not written by amtml_pl.export"),
        (["model={onnx}", "images=[{pictures},{tmp}/x.png]"], "matches no image file (expected .bmp"),
        (["model={onnx}", "images=a[1].png"], """to pass the value as a string: 'images="a[1].png"'"""),
        (["model={onnx}", "images={pictures}", "out={run}/metrics.csv"], "is not a table of predictions"),
        (["model={onnx}", "images={pictures}/notes.txt"], "notes.txt (unknown format, expected PNG, "),
        (["model={onnx}", "images={pictures}", "top=0"], "top=0: expected a whole number, 1 or more"),
        (["model={onnx}", "images={pictures}", "checkpoint=last"], "is an exported file"),
        (["model={long}", "images={pictures}"], "cannot be read or written: File name too long"),
    ],
)
def test_a_mistake_is_one_message_and_overwrites_nothing(
    exported, pictures, command, tmp_path, words, printed
):
    table = tmp_path / "predictions.csv"
    table.write_text("file,class,probability\nbefore")
    places = {"run": exported, "onnx": exported / FILES["onnx"], "tmp": tmp_path, "pictures": pictures}
    places["long"] = tmp_path / ("n" * 300)
    typed = [word.format(**places) for word in words]
    if not any(word.startswith("out=") for word in typed):
        typed.append(f"out={table}")
    before = {file: file.read_bytes() for file in (table, *exported.rglob("*.*"), *pictures.glob("*.png"))}
    assert printed in command(predict.main, *typed, status=2)
    assert {file: file.read_bytes() for file in before} == before


def test_an_unreadable_image_is_named_and_nothing_is_written(exported, pictures, command, tmp_path):
    (pictures / "more" / "021.png").write_bytes((pictures / "more" / "022.png").read_bytes()[:100])
    words = (f"model={exported}/{FILES['onnx']}", f"images={pictures}", f"out={tmp_path}/p.csv")
    printed = command(predict.main, *words, status=2)
    assert "1 of 40 images" in printed
    assert "021.png" in printed
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize("name", ["student.onnx", "student.safetensors"])
def test_a_truncated_file_is_one_message(exported, pictures, command, name):
    file = exported / "export" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    printed = command(predict.main, f"model={file}", f"images={pictures}", status=2)
    assert str(file) in printed


@pytest.fixture
def changed_export(exported, pictures, command):
    """Return a function that changes an export without its ``export.json``, and predicts with it."""
    (exported / "export" / "export.json").unlink()

    def printed(kind, change):
        file = exported / FILES[kind]
        if kind == "onnx":
            model = onnx.load(file)
            card = {entry.key: entry.value for entry in model.metadata_props}
            change(card)
            del model.metadata_props[:]
            onnx.helper.set_model_props(model, card)
            onnx.save(model, file)
        else:
            with safe_open(file, framework="pt") as content:
                card = content.metadata()
            tensors = load_file(file)
            change(card, tensors)
            save_file(tensors, file, metadata=card)
        return command(predict.main, f"model={file}", f"images={pictures}/000.png", status=2)

    return printed


def test_onnx_of_another_program_is_refused_by_its_metadata(changed_export):
    printed = changed_export("onnx", dict.clear)
    assert "were not written by amtml_pl.export (got amtml_pl=absent" in printed


def test_fewer_class_names_than_outputs_are_refused(changed_export):
    printed = changed_export("onnx", lambda card: card.update(classes=json.dumps(["cat", "dog"])))
    assert "returns logits of a wrong shape (got (1, 10), expected (1, 2))" in printed


def test_weights_of_another_network_are_refused(changed_export):
    printed = changed_export("safetensors", lambda _, tensors: tensors.pop("fc.bias"))
    assert "1 tensors differ (the first is fc.bias" in printed


def test_logits_that_are_not_finite_are_refused(changed_export, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where predictions.csv would be
    printed = changed_export("safetensors", lambda _, tensors: tensors["fc.bias"].fill_(torch.nan))
    assert "returns logits that are NaN or infinite" in printed
    assert not (tmp_path / "predictions.csv").exists()


def test_a_strangers_card_reads_nothing_of_this_machine(changed_export):
    def with_environment(card, _):
        card["network"] = json.dumps({**json.loads(card["network"]), "depth": "${oc.env:HOME}"})

    assert "expected a network without ${...}" in changed_export("safetensors", with_environment)


def test_ctrl_c_while_torch_is_imported_ends_without_traceback(tmp_path):
    """It does not promise that a repeated command resumes."""
    words = [sys.executable, "-m", "amtml_pl.predict", "model=nowhere", "images=nowhere"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in printed
    assert "Interrupted. To start again, run:" in printed
    assert "python -m amtml_pl.predict model=nowhere images=nowhere" in printed


def test_a_moved_export_works_without_its_run(exported, pictures, command, tmp_path):
    far = tmp_path / "far"
    far.mkdir()
    shutil.move(exported / "export" / "student.safetensors", far / "mine.safetensors")
    shutil.rmtree(exported)
    printed = command(predict.main, f"model={far}/mine.safetensors", f"images={pictures}/000.png", "top=1")
    assert printed.count("000.png") == 1


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_a_file_with_one_changed_weight_is_refused_by_its_record(exported, pictures, command, kind):
    file = exported / FILES[kind]
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    printed = command(predict.main, f"model={file}", f"images={pictures}", status=2)
    assert f"{file.name} changed after the export" in printed
