"""The training command: exit statuses, messages, Ctrl-C."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
import yaml

from amtml_pl.config.paths import config_directory
from archives import write_image_folder

pytestmark = pytest.mark.slow

SMALL = (
    "trainer=cpu", "trainer.max_epochs=1", "data.train_size=60", "data.val_size=20", "student=resnet8_thin",
    "logger=[]",
)  # fmt: skip


@pytest.fixture
def command(tmp_path, shared):
    """Return a function that runs ``python -m amtml_pl.train`` from another directory."""

    def call(*words, background=False):
        paths = {"AMTML_DATA": shared / "data", "AMTML_TEACHERS": shared / "teachers"}
        paths["AMTML_OUTPUTS"] = tmp_path / "outputs"
        environment = {**os.environ, **{k: str(v) for k, v in paths.items()}}
        line = [sys.executable, "-m", "amtml_pl.train", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        if background:
            return subprocess.Popen(line, cwd=tmp_path, env=environment, **pipes)
        return subprocess.run(line, cwd=tmp_path, env=environment, check=False, **pipes)

    return call


def test_a_missing_archive_is_reported_with_both_ways_to_provide_it(mistake, tmp_path):
    output = mistake("experiment=cifar100_amtml", "dataset.source.mirrors=[http://127.0.0.1:9]", *SMALL)
    assert "cifar-100-python.tar.gz" in output
    assert str(tmp_path / "data" / "cifar100") in output
    assert "127.0.0.1:9" in output
    assert "mirrors" in output.split("Fix:")[1]
    assert "put" in output.split("Fix:")[1]


def test_a_wrong_number_of_classes_is_reported_with_the_right_one(mistake, tmp_path):
    write_image_folder(tmp_path / "mine", classes=("a", "b", "c"))
    own = ("dataset=image_folder", f"dataset.source.folder={tmp_path}/mine", "dataset.num_classes=5")
    output = mistake(*own, *SMALL, "data.val_size=2")
    assert "(got 5, expected 3). The first classes are a, b, c." in output
    assert "dataset.num_classes=3" in output


FEW = (
    "dataset.num_classes=2", "data.val_size=2", "data.batch_size=6", "data.views=2", "trainer.max_epochs=1",
    "trainer=cpu", "logger=[]",
)  # fmt: skip


def test_the_documented_command_trains_on_images_of_224_pixels(command, tmp_path):
    pytest.importorskip("timm")
    page = (config_directory().parent / "docs" / "data.md").read_text().replace("\\\n", " ")
    [line] = [line for line in page.splitlines() if line.startswith("python") and "image_size=224" in line]
    flowers = tmp_path / "flowers"
    write_image_folder(flowers, classes=("a", "b"), per_class={"train": 4, "test": 1}, size=(240, 230))
    words = [word.replace("$PWD", str(tmp_path)) for word in shlex.split(line)[3:]]
    done = command(*words, *FEW, f"paths.data={tmp_path}/data")
    assert done.returncode == 0, done.stderr
    [file] = (tmp_path / "outputs").rglob("config.yaml")
    config = yaml.safe_load(file.read_text())
    assert config["data"]["augment"]["operations"][0]["_target_"].endswith(".RandomResizedCrop")
    assert config["student"]["network"]["image_size"] == 224


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_leaves_a_run_that_the_same_command_finishes_with_the_same_result(command, tmp_path):
    folder = tmp_path / "my conf" / "student"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text((config_directory() / "student" / "resnet8_thin.yaml").read_text())
    small = [word for word in SMALL if not word.startswith(("student=", "trainer.max_epochs="))]
    own = ("--config-dir", "my conf", "student=mine")
    job = [*own, "experiment=digits", "method=ce", *small, "trainer.max_epochs=20"]
    process = command(*job, "force=true", "hydra.run.dir=cut", background=True)
    record, seen = tmp_path / "cut" / "run.json", ""
    while "epoch 2/20" not in seen and process.poll() is None:
        seen += process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    output = errors.partition("Interrupted. To resume, run:")[2]
    python, flag, module, *words = shlex.split(output)
    assert (python, flag, module) == ("python", "-m", "amtml_pl.train")
    assert json.loads(record.read_text())["status"] == "interrupted"
    again = command(*words)
    assert again.returncode == 0, again.stderr
    assert "Resuming from" in again.stdout
    whole = command(*job, f"hydra.run.dir={tmp_path}/whole")
    assert whole.returncode == 0
    results = [json.loads((tmp_path / n / "run.json").read_text())["metrics"] for n in ("cut", "whole")]
    assert results[0] == results[1]
    students = [(tmp_path / n / "student.safetensors").read_bytes() for n in ("cut", "whole")]
    assert students[0] == students[1]
