"""Runs of several processes by their commands: one folder, one status, no process left behind."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tiny_runs import TINY, assert_bitwise_equal

pytestmark = pytest.mark.slow
EXAMINED = ("experiment=digits_amtml", *TINY[1:], "trainer=ddp_cpu")
RUN = (*EXAMINED, "doctor=false")
LONG = ("trainer.max_epochs=6", "checkpoint_minutes=0", "callbacks=[ema]", "callbacks.ema.decay=0.5")
LOGGED = ("logger=[csv,mlflow]", "callbacks=[ema,lr_monitor]")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The environment with the folders of packed data, trained teachers and the cache."""
    folder = tmp_path_factory.mktemp("prepared")
    environment = {**os.environ, "AMTML_DATA": str(folder / "data")}
    environment |= {"AMTML_TEACHERS": str(folder / "teachers"), "AMTML_CACHE": str(folder / "cache")}
    return environment


@pytest.fixture
def train(prepared, tmp_path):
    """Start a training command in a folder for the test."""

    def begin(*words, outputs="outputs"):
        environment = {**prepared, "AMTML_OUTPUTS": str(tmp_path / outputs)}
        command = [sys.executable, "-m", "amtml_pl.train", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)

    return begin


def ended(process, timeout=240):
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def records(folder):
    return [json.loads(file.read_text()) for file in sorted(folder.rglob("runs/*/*/run.json"))]


def student(folder):
    [file] = folder.rglob("runs/*/*/student.safetensors")
    return load_file(file)


def alive(mark):
    """Return the other processes whose command line contains a text."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue  # it has just ended
    return [pid for pid in found if pid != os.getpid()]


def wait_until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.05)


def has_trained(folder):
    """Return True if a run has written metrics of an epoch."""
    return any(len(table.read_text().splitlines()) > 1 for table in folder.rglob("runs/*/*/metrics.csv"))


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """The folder and output of an uninterrupted run under torchrun, with the doctor and loggers."""
    folder = tmp_path_factory.mktemp("whole")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "amtml_pl.train"]
    environment = {**prepared, "AMTML_OUTPUTS": str(folder)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([*command, *EXAMINED, *LONG, *LOGGED], env=environment, check=False, **pipes)
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


def test_a_run_under_torchrun_completes_and_prints_once(whole):
    folder, output = whole
    [record] = records(folder)
    assert record["status"] == "completed"
    assert record["cache"]["teacher_passes"].keys() <= {"vgg8_quarter", "resnet8"}
    assert output.count("digits_amtml (seed 0)") == 1  # the other process is silent


def test_a_sweep_starts_a_group_for_each_job_and_prints_a_message_of_all_processes_once(train, tmp_path):
    status, output = ended(train("-m", *RUN, "trainer.devices=2", "optimizer.lr=1e30,0.05"))
    assert status != 0, output
    assert output.count("is not finite at") == 1, output
    found = {record["status"]: record for record in records(tmp_path)}
    assert found.keys() == {"completed", "failed"}
    assert "is not finite at" in found["failed"]["error"]
    assert "Traceback" not in output
    assert len([*(tmp_path / "outputs" / "runs").glob("*/")]) == 1


def test_two_processes_write_one_run_of_each_logger_and_save_one_average(whole):
    [folder] = whole[0].glob("runs/*/*")
    assert [table.parent.name for table in folder.glob("csv/*/metrics.csv")] == ["version_0"]
    with sqlite3.connect(whole[0] / "mlflow.db") as database:
        assert database.execute("select name, status from runs").fetchall() == [(folder.name, "FINISHED")]
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    average, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert any(not average[name].equal(value) for name, value in current.items() if "weight" in name)


def test_a_run_whose_process_dies_ends_as_a_whole_and_can_be_resumed(train, whole, tmp_path):
    """The command starts the processes here, and torchrun those of the uninterrupted run."""
    mark = str(tmp_path)  # in the command line of the processes
    broken = train(*RUN, *LONG, outputs="broken")
    wait_until(lambda: has_trained(tmp_path / "broken"))
    *_, last = sorted(pid for pid in alive(mark) if pid != broken.pid)
    os.kill(last, signal.SIGKILL)
    status, output = ended(broken, timeout=60)
    assert status == 1, output
    assert "Process 1 of the run was ended by SIGKILL" in output
    assert "Traceback" not in output
    assert alive(mark) == []
    [record] = records(tmp_path / "broken")
    assert record["status"] in ("interrupted", "failed")
    assert record.get("error", "Another process").startswith("Another process")
    status, output = ended(train(*RUN, *LONG, outputs="broken"))
    assert status == 0, output
    assert "Resuming from" in output
    assert_bitwise_equal(student(whole[0]), student(tmp_path / "broken"))


def test_a_group_ends_when_its_launcher_is_killed(train, tmp_path):
    mark = f"seed={os.getpid() + 1}"
    launcher = train(*RUN, *LONG, mark, "trainer.max_epochs=500")
    wait_until(lambda: has_trained(tmp_path))
    launcher.kill()
    wait_until(lambda: alive(mark) == [], seconds=20)


def test_the_process_of_a_teacher_ends_with_the_run_that_started_it(tmp_path):
    script = tmp_path / "sleeps.py"
    script.write_text("import time\nprint('asleep', flush=True)\ntime.sleep(600)\n")
    # A launcher that starts the process as `run_detached` does, and is killed.
    launcher = tmp_path / "launches.py"
    launcher.write_text(f"from amtml_pl.system.launch import run_detached\nrun_detached([{str(script)!r}])\n")
    run = subprocess.Popen([sys.executable, launcher], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "asleep\n"
    assert len(alive(str(script))) == 1
    run.kill()
    run.wait()
    wait_until(lambda: alive(str(script)) == [], seconds=20)


def test_a_preempted_group_saves_and_exits_with_status_75(train, tmp_path):
    mark = f"seed={os.getpid() + 2}"
    launcher = train(*RUN, mark, "trainer.max_epochs=500", "checkpoint_minutes=null")
    wait_until(lambda: has_trained(tmp_path))
    launcher.terminate()
    status, output = ended(launcher, timeout=60)
    assert status == 75, output
    assert "Preempted. To resume, run:" in output
    assert alive(mark) == []
    [record] = records(tmp_path)
    assert record["status"] == "interrupted"
