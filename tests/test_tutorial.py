"""The tutorials, followed word for word."""

import csv
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

SHAPES = {
    "circle": lambda draw, box, **how: draw.ellipse(box, fill=how["fill"]),
    "cross": lambda draw, box, **how: [
        draw.line(ends, width=4, **how) for ends in (box, [box[0], box[3], box[2], box[1]])
    ],
    "square": lambda draw, box, **how: draw.rectangle(box, fill=how["fill"]),
}


def draw_images(folder, per_class):
    """Bright shapes of random places, sizes and colours on dark noise, 40 pixels wide."""
    random = np.random.default_rng(per_class)
    for name, draw in SHAPES.items():
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            image = Image.fromarray(random.integers(0, 120, (40, 40, 3), dtype=np.uint8))
            x, y, size = (int(value) for value in random.integers([4, 4, 12], [16, 16, 20]))
            colour = tuple(int(value) for value in random.integers(120, 256, 3))
            draw(ImageDraw.Draw(image), [x, y, x + size, y + size], fill=colour)
            image.save(folder / name / f"{number}.png")


@pytest.mark.slow
def test_the_tutorial_leads_from_images_to_a_student_that_onnx_runtime_runs(tmp_path, follow):
    draw_images(tmp_path / "my_images" / "train", per_class=60)
    draw_images(tmp_path / "my_images" / "test", per_class=20)
    follow("tutorial.md", tmp_path)

    runs = tmp_path / "outputs" / "runs"
    assert (runs / "report" / "report.html").is_file()
    records = [json.loads(file.read_text()) for file in runs.glob("mine/*/run.json")]
    assert [record["status"] for record in records] == ["completed"] * 6
    passes_by_run = [record["cache"]["teacher_passes"] for record in records if record["teachers"]]
    total = {name: sum(passes.get(name, 0) for passes in passes_by_run) for name in ("wide", "resnet8")}
    assert all(4 <= count <= 2 * 4 for count in total.values())  # 4 views; logits, then hints; for 4 runs
    [run] = runs.glob("mine/method-amtml-*")
    assert json.loads((run / "evaluate.json").read_text())
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 20 * len(SHAPES)


@pytest.mark.slow
def test_three_teachers_from_three_places_teach_one_student(tmp_path, follow):
    follow("tutorial_teachers.md", tmp_path)

    records = [json.loads(file.read_text()) for file in tmp_path.glob("outputs/runs/digits/*/run.json")]
    assert len(records) == 2
    for record in records:
        assert set(record["teachers"]) == {"resnet8", "vgg8_quarter", "test_vit"}
    known = sorted(record["metrics"]["weight_known"] for record in records)
    assert known[0] < 0.9  # averaging, half of the labels are unknown to one of three
    assert known[1] == pytest.approx(1)
    assert len(list(tmp_path.glob("outputs/runs/digits/*/export/*.onnx"))) == 1
    assert len(list(tmp_path.glob("outputs/teachers/heads/vgg8_quarter-*.safetensors"))) == 1
