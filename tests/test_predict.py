"""The classes of image files, by a student that is exported or not."""

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
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from amtml_pl import predict
from amtml_pl.data import image_files
from amtml_pl.data.image_files import read_batches
from amtml_pl.errors import UserError
from amtml_pl.results.export.formats.kinds import KINDS
from amtml_pl.results.export.parity import MOST_DIFFERENCE
from amtml_pl.results.run import load_run
from rounding import images_of, undecided

FILES = {kind: f"export/student{made.suffix}" for kind, made in KINDS.items()}
COUNT = 40


@pytest.fixture
def pictures(exported, tmp_path):
    """Write the first test images as files, some of them in a folder below."""
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
    trust = ["trust=true"] if model.endswith(".pt2") else []
    output = command(predict.main, *words, "top=2", *trust)
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
    printed = [line.split()[:3] for line in output.splitlines()]
    for row in found:
        assert [row["file"], row["class"], f"{float(row['probability']):.4f}"] in printed


@pytest.mark.numbers
def test_the_last_epoch_of_a_run_can_be_chosen(exported, pictures, command, tmp_path):
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


def test_a_file_name_that_is_not_utf_8_is_kept_in_the_table(exported, pictures, command, tmp_path):
    odd = tmp_path / "odd"
    odd.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(pictures / "000.png", odd / name)
    words = (f"model={exported}/{FILES['onnx']}", f"images={odd}", f"out={tmp_path}/odd.csv")
    for _ in range(2):  # the second replaces the first
        command(predict.main, *words)
    assert b"caf\xe9.png," in (tmp_path / "odd.csv").read_bytes()


def test_a_file_that_could_run_code_is_opened_only_where_it_is_trusted(exported, pictures, command):
    output = command(predict.main, f"model={exported}/export/student.pt2", f"images={pictures}", status=2)
    assert "student.pt2 is not opened" in output
    assert "trust=true" in output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images={pictures}"], "model is missing: expected an exported student"),
        (["model={onnx}"], "images is missing: expected images=FOLDER"),
        (["model={tmp}/nowhere", "images={pictures}"], "There is no model"),
        (["model={tmp}", "images={pictures}"], "name the folder of a run, such as"),
        (["model={run}/checkpoints/best.ckpt", "images={pictures}"], "torch.save, TorchScript or another"),
        (["model={run}/student.safetensors", "images={pictures}"], "was not written by amtml_pl.export"),
        (["model={onnx}", "images={tmp}/nowhere"], "There is no image"),
        (["model={onnx}", "images=[{pictures},{tmp}/x.png]"], "x.png'; known are .bmp"),
        (["model={onnx}", "images={run}/checkpoints"], "There is no image in the folder"),
        (["model={onnx}", "images=a[1].png"], """to type it as text: 'images="a[1].png"'"""),
        (["model={onnx}", "images={pictures}", "out={onnx}"], "has a name that ends in .csv"),
        (["model={onnx}", "images={pictures}", "out={run}/metrics.csv"], "is not a table of predictions"),
        (["model={onnx}", "images={pictures}/notes.txt"], "notes.txt (none of PNG, JPEG, "),
        (["model={onnx}", "images={pictures}", "out={run}/run.json/p.csv"], "p.csv cannot be written"),
        (["model={onnx}", "images={pictures}", "checkpoint=last"], "is a choice of a run's folder"),
        (["modle={onnx}"], "did you mean 'model'?"),
        (["model={onnx}", "images={pictures}", "out={long}.csv"], "File name too long"),
    ],
)
def test_a_mistake_overwrites_nothing(exported, pictures, command, tmp_path, words, message):
    table = tmp_path / "predictions.csv"
    table.write_text("file,class,probability\nbefore")
    places = {"run": exported, "onnx": exported / FILES["onnx"], "tmp": tmp_path, "pictures": pictures}
    places["long"] = tmp_path / ("n" * 300)
    typed = [word.format(**places) for word in words]
    if not any(word.startswith("out=") for word in typed):
        typed.append(f"out={table}")
    before = {file: file.read_bytes() for file in (table, *exported.rglob("*.*"), *pictures.glob("*.png"))}
    assert message in command(predict.main, *typed, status=2)
    assert {file: file.read_bytes() for file in before} == before


def test_an_unreadable_image_is_named_and_nothing_is_written(exported, pictures, command, tmp_path):
    (pictures / "more" / "021.png").write_bytes((pictures / "more" / "022.png").read_bytes()[:100])
    words = (f"model={exported}/{FILES['onnx']}", f"images={pictures}", f"out={tmp_path}/p.csv")
    output = command(predict.main, *words, status=2)
    assert "1 of 40 images" in output
    assert "021.png" in output
    assert not (tmp_path / "p.csv").exists()


STRANGERS = {
    "no card": (
        lambda card, _: card.clear(),
        "by amtml_pl.export: in its metadata amtml_pl=absent",
    ),
    "fewer classes": (
        lambda card, _: card.update(classes=json.dumps(["cat", "dog"])),
        "shape (1, 10), expected (1, 2)",
    ),
    "another network": (lambda _, tensors: tensors.pop("fc.bias"), "1 tensors differ, the first is fc.bias"),
    "no numbers": (
        lambda _, tensors: tensors["fc.bias"].fill_(torch.nan),
        "gives logits that are no finite numbers",
    ),
}


@pytest.mark.parametrize(("change", "reason"), STRANGERS.values(), ids=STRANGERS)
def test_a_changed_export_without_its_record_is_rejected(exported, pictures, command, change, reason):
    (exported / "export" / "export.json").unlink()
    file = exported / FILES["safetensors"]
    with safe_open(file, framework="pt") as content:
        card = content.metadata()
    tensors = load_file(file)
    change(card, tensors)
    save_file(tensors, file, metadata=card)
    assert reason in command(predict.main, f"model={file}", f"images={pictures}/000.png", status=2)


def test_ctrl_c_during_the_import_of_torch_prints_one_message(tmp_path):
    words = [sys.executable, "-m", "amtml_pl.predict", "model=nowhere", "images=nowhere"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, output = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in output
    assert "Interrupted. This begins again:" in output
    assert "python -m amtml_pl.predict model=nowhere images=nowhere" in output


def test_a_moved_export_works_without_its_run(exported, pictures, command, tmp_path):
    far = tmp_path / "far"
    far.mkdir()
    shutil.move(exported / "export" / "student.safetensors", far / "mine.safetensors")
    shutil.rmtree(exported)
    output = command(predict.main, f"model={far}/mine.safetensors", f"images={pictures}/000.png", "top=1")
    assert output.count("000.png") == 1


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_a_file_with_one_changed_weight_is_refused_by_its_record(exported, pictures, command, kind):
    file = exported / FILES[kind]
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    output = command(predict.main, f"model={file}", f"images={pictures}", status=2)
    assert f"{file.name} was changed after the export" in output
