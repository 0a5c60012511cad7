"""Networks of several input sizes in one run: each sees the same images, at its own size."""

import json
import shlex
from pathlib import Path

import onnx
import pytest
import torch
from PIL import Image

from amtml_pl import evaluate, export, predict
from amtml_pl.models.resize import resize
from amtml_pl.models.taps import cost
from amtml_pl.results.export.formats import FORMATS, open_exported
from amtml_pl.results.export.parity import MOST_DIFFERENCE
from amtml_pl.results.run import load_run
from rounding import images_of
from tiny_runs import TINY

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("short_measurements")]

VIT = """
network:
  _target_: timm.create_model
  model_name: vit_tiny_patch16_224
  num_classes: ${dataset.num_classes}
  depth: 1
  embed_dim: 12
  num_heads: 1
stages: [blocks.0, norm]
hint: norm
input_size: 224
"""
AS_TEACHER = "defaults: [source@vit: trained, /student@vit: vit]"


@pytest.fixture
def sizes(tmp_path):
    """Return the overrides of a student of 24 pixels with teachers of 224 and 32."""
    pytest.importorskip("timm")
    for group, text in (("student", VIT), ("teacher", AS_TEACHER)):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "vit.yaml").write_text(text)
    data, ours = (TINY[0:5], [word for word in TINY[5:] if "resnet8." not in word])
    return (
        "experiment=digits_amtml", f"hydra.searchpath=[{tmp_path}/conf]", *data, *ours,
        "teacher=[vgg8_quarter,vit]", "teacher.vit.recipe_overrides=['trainer.max_epochs=1','logger=[]']",
        "trainer.max_epochs=1", "student.input_size=24",
    )  # fmt: skip


@pytest.fixture
def finished(run, sizes):
    """Return the record of the run, and its folder."""
    return run(*sizes)


def test_a_run_with_networks_of_other_sizes_works_from_training_to_prediction(finished, command, tmp_path):
    record, folder = finished
    opened = load_run(folder.path)
    student, images = opened.student(), images_of(opened, "test")
    assert student.input_size == 24
    assert images.shape[2:] == (32, 32)
    bare = (resize(images, 24) - student.mean) / student.std
    assert torch.equal(student(images).logits, student.network(bare))
    assert record.student.macs == cost(student, 32).macs
    assert opened.teachers[1].load().network.input_size == 224

    for name, made in FORMATS.items():
        command(export.main, f"run={folder.path}", f"format={name}")
        file = folder.path / "export" / f"student{made.suffix}"
        exported = open_exported(file)
        assert (exported.card.image_size, exported.card.input_size) == (32, 24)
        for batch in (images[:1], images[:7]):
            difference = exported.forward(batch) - student(batch).logits
            assert difference.abs().max() <= MOST_DIFFERENCE
        picture = tmp_path / "a.png"
        Image.fromarray((images[0] * 255).byte().permute(1, 2, 0).numpy()).save(picture)
        command(predict.main, f"model={file}", f"images={picture}", f"out={tmp_path}/{name}.csv")
    graph = onnx.load(folder.path / "export" / "student.onnx").graph
    assert [size.dim_value for size in graph.input[0].type.tensor_type.shape.dim[1:]] == [3, 32, 32]

    command(evaluate.main, f"run={folder.path}")
    assert json.loads((folder.path / "evaluate.json").read_text())


def test_a_second_run_repeats_the_first_to_the_bit_without_a_teacher(finished, run, sizes):
    first, folder = finished
    assert first.cache.teacher_passes == {"vgg8_quarter": 1.0, "vit": 1.0}
    second, again = run(*sizes, name="again")
    assert second.cache.teacher_passes == {}
    assert again.weights_file.read_bytes() == folder.weights_file.read_bytes()


def test_the_documented_command_runs(run):
    page = (Path(__file__).parent.parent / "docs" / "teachers.md").read_text()
    section = page.partition("## Use networks of different input sizes")[2].partition("\n## ")[0]
    [line] = [line for line in section.splitlines() if line.startswith("python -m amtml_pl.train ")]
    words = shlex.split(line)[3:]
    record, _ = run(*words, *TINY, "trainer.max_epochs=1")
    assert record.status == "completed"
