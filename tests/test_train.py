"""The command line as a user meets it: exit statuses, messages, sweeps, Ctrl-C."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest

from amtml_pl.config.paths import config_directory
from archives import write_image_folder

SMALL = (
    "trainer=cpu", "trainer.max_epochs=1", "data.train_size=60", "data.val_size=20", "student=resnet8_thin",
    "logger=[]",
)  # fmt: skip


@pytest.fixture
def command(tmp_path, shared):
    """Runs ``python -m amtml_pl.<name>`` from another directory, as a user's shell would."""

    def call(*words, name="train", background=False):
        paths = {"AMTML_DATA": shared / "data", "AMTML_TEACHERS": shared / "teachers"}
        paths["AMTML_OUTPUTS"] = tmp_path / "outputs"
        environment = {**os.environ, **{k: str(v) for k, v in paths.items()}}
        line = [sys.executable, "-m", f"amtml_pl.{name}", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        if background:
            return subprocess.Popen(line, cwd=tmp_path, env=environment, **pipes)
        return subprocess.run(line, cwd=tmp_path, env=environment, check=False, **pipes)

    return call


def test_a_missing_archive_is_said_with_the_places_and_both_ways_to_provide_it(mistake, tmp_path):
    said = mistake("experiment=cifar100_amtml", "dataset.source.mirrors=[http://127.0.0.1:9]", *SMALL)
    assert "cifar-100-python.tar.gz" in said
    assert str(tmp_path / "data" / "cifar100") in said
    assert "127.0.0.1:9" in said
    assert "mirrors" in said.split("To fix it:")[1]
    assert "put" in said.split("To fix it:")[1]


def image_folder(tmp_path, classes="ab"):
    write_image_folder(tmp_path / "mine", classes=tuple(classes))
    source = (f"dataset.source.folder={tmp_path}/mine", f"dataset.num_classes={len(classes)}")
    budget = ("trainer=cpu", "trainer.max_epochs=1", "data.val_size=2", "student=resnet8_thin")
    return ("dataset=image_folder", *source, *budget)


def test_a_wrong_number_of_classes_says_the_right_one(mistake, tmp_path):
    said = mistake(*image_folder(tmp_path, "abc"), "dataset.num_classes=5")
    assert "has 3 classes" in said
    assert "dataset.num_classes=3" in said


def test_a_temperature_of_zero_is_refused(mistake, tmp_path):
    assert "temperature=0: expected a number above 0" in mistake("experiment=digits_amtml", "temperature=0")
    assert not list(tmp_path.rglob("run.json"))
    assert not [path for path in tmp_path.rglob("*") if path.is_dir() and path.name.startswith("temperature")]


@pytest.mark.slow
def test_mistakes_in_the_command_end_with_status_2_before_any_work(command, tmp_path):
    unknown = command("experiment=digits_amt")
    assert unknown.returncode == 2
    assert "digits_amtml" in unknown.stderr
    typo = command("experiment=digits_amtml", "temperatur=3")
    assert typo.returncode == 2
    assert "temperatur" in typo.stderr
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_a_sweep_runs_every_combination_in_a_folder_of_its_own_and_the_report_reads_them(command, tmp_path):
    job = ("experiment=digits", "method=avg", *SMALL, "teacher=[vgg8_quarter]")
    done = command("--multirun", *job, "temperature=2,4", "seed=0,1")
    assert done.returncode == 0, done.stderr
    records = [json.loads(file.read_text()) for file in tmp_path.rglob("run.json")]
    assert len(records) == 4
    assert {r["status"] for r in records} == {"completed"}
    assert {(r["temperature"], r["seed"]) for r in records} == {(2, 0), (2, 1), (4, 0), (4, 1)}
    report = command("runs=outputs/runs", name="report")
    assert report.returncode == 0, report.stderr
    table = (tmp_path / "outputs" / "runs" / "report" / "report.md").read_text()
    assert [f"| temperature={value} | 2 |" in table for value in (2, 4)] == [True, True]
    assert "±" in table
    assert len((tmp_path / "outputs" / "runs" / "report" / "report.csv").read_text().splitlines()) == 5


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_the_same_command_finishes_with_the_same_result(command, tmp_path):
    """A student that is the user's own, in a folder that is: both are in the command that is said."""
    own = tmp_path / "my conf" / "student"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text((config_directory() / "student" / "resnet8_thin.yaml").read_text())
    small = [word for word in SMALL if not word.startswith(("student=", "trainer.max_epochs="))]
    job = [
        "--config-dir",
        "my conf",
        "experiment=digits",
        "method=ce",
        *small,
        "student=mine",
        "trainer.max_epochs=20",
    ]
    process = command(*job, "hydra.run.dir=cut", background=True)
    record, seen = tmp_path / "cut" / "run.json", ""
    while "epoch 2/20" not in seen and process.poll() is None:
        seen += process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    said = errors.partition("Interrupted. This continues where it stopped:")[2]
    python, flag, module, *words = shlex.split(said)
    assert (python, flag, module) == ("python", "-m", "amtml_pl.train")
    assert json.loads(record.read_text())["status"] == "interrupted"
    again = command(*words)
    assert again.returncode == 0, again.stderr
    assert "Resuming from" in again.stdout
    whole = command(*job, f"hydra.run.dir={tmp_path}/whole")
    assert whole.returncode == 0
    results = [json.loads((tmp_path / n / "run.json").read_text())["metrics"] for n in ("cut", "whole")]
    assert results[0] == results[1]
    assert (tmp_path / "cut/student.safetensors").read_bytes() == (
        tmp_path / "whole/student.safetensors"
    ).read_bytes()


@pytest.mark.slow
def test_a_mistake_in_one_job_of_a_sweep_does_not_end_the_others(command, tmp_path):
    done = command("--multirun", "experiment=digits", "method=ce", *SMALL, "student.network.depth=9,8")
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "depth" in done.stderr
    records = [json.loads(file.read_text()) for file in tmp_path.rglob("run.json")]
    assert [record["status"] for record in records] == ["completed"]
