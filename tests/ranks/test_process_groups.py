"""Runs of several processes as they are typed: one folder, one fate, no process left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tiny_runs import TINY, assert_bitwise_equal

pytestmark = pytest.mark.slow
EXAMINED = ("experiment=digits_amtml", *TINY[1:], "trainer=ddp_cpu")
RUN = (*EXAMINED, "doctor=false")
LONG = ("trainer.max_epochs=6", "checkpoint_minutes=0")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Packed data, trained teachers, and the environment that names them."""
    folder = tmp_path_factory.mktemp("prepared")
    environment = {**os.environ, "AMTML_DATA": str(folder / "data")}
    environment |= {"AMTML_TEACHERS": str(folder / "teachers"), "AMTML_CACHE": str(folder / "cache")}
    return environment


@pytest.fixture
def train(prepared, tmp_path):
    """Begins a command in a folder of the test's own."""

    def begin(*words, outputs="outputs"):
        environment = {**prepared, "AMTML_OUTPUTS": str(tmp_path / outputs)}
        command = [sys.executable, "-m", "amtml_pl.train", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes)

    return begin


def ended(process, timeout=240):
    said, _ = process.communicate(timeout=timeout)
    return process.returncode, said


def records(folder):
    return [json.loads(file.read_text()) for file in sorted(folder.rglob("runs/*/*/run.json"))]


def student(folder):
    [file] = folder.rglob("runs/*/*/student.safetensors")
    return load_file(file)


def alive(mark):
    """The processes whose command line holds a text."""
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
        assert time.monotonic() < deadline, "it has not come to that"
        time.sleep(0.05)


def has_trained(folder, steps=6):
    """Whether a run has a checkpoint of that many steps, which it writes after each of them."""
    [table] = [*folder.rglob("runs/*/*/metrics.csv")] or [None]
    return table is not None and len(table.read_text().splitlines()) > steps // 4


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory):
    """A run that nothing happens to, examined first, under torchrun: its folder, and what was said."""
    folder = tmp_path_factory.mktemp("whole")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "amtml_pl.train"]
    environment = {**prepared, "AMTML_OUTPUTS": str(folder)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([*command, *EXAMINED, *LONG], env=environment, check=False, **pipes)
    assert done.returncode == 0, done.stdout
    return folder, done.stdout


def test_torchrun_as_the_documentation_has_it(whole):
    folder, said = whole
    [record] = records(folder)
    assert record["status"] == "completed"
    assert record["cache"]["teacher_passes"].keys() <= {"vgg8_quarter", "resnet8"}
    assert said.count("digits_amtml (seed 0)") == 1  # the other process is silent


def test_a_sweep_starts_a_group_for_each_of_its_jobs(train, tmp_path):
    status, said = ended(train("-m", *RUN, "trainer.devices=2", "seed=0,1"))
    assert status == 0, said
    found = sorted((record["seed"], record["status"]) for record in records(tmp_path))
    assert found == [(0, "completed"), (1, "completed")]
    assert len([*(tmp_path / "outputs" / "runs").glob("*/")]) == 1


def test_a_run_whose_process_dies_ends_as_a_whole_and_is_gone_on_with(train, whole, tmp_path):
    """Whoever starts its processes: here the command itself does, and the whole run was torchrun's."""
    mark = str(tmp_path)  # which the processes are told as the place of their run
    broken = train(*RUN, *LONG, outputs="broken")
    wait_until(lambda: has_trained(tmp_path / "broken"))
    *_, last = sorted(pid for pid in alive(mark) if pid != broken.pid)
    os.kill(last, signal.SIGKILL)
    status, said = ended(broken, timeout=60)
    assert status == 1, said
    assert "Process 1 of the run was ended by SIGKILL" in said
    assert "Traceback" not in said
    assert alive(mark) == []
    [record] = records(tmp_path / "broken")
    assert record["status"] in ("interrupted", "failed")
    assert record.get("error", "Another process").startswith("Another process")
    status, said = ended(train(*RUN, *LONG, outputs="broken"))
    assert status == 0, said
    assert "Resuming from" in said
    assert_bitwise_equal(student(whole[0]), student(tmp_path / "broken"))


def test_a_group_ends_when_its_launcher_is_killed(train, tmp_path):
    mark = f"seed={os.getpid() + 1}"
    launcher = train(*RUN, *LONG, mark, "trainer.max_epochs=500")
    wait_until(lambda: has_trained(tmp_path))
    launcher.kill()
    wait_until(lambda: alive(mark) == [], seconds=20)


def test_the_process_of_a_teacher_ends_with_the_run_that_has_started_it(tmp_path):
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


def test_a_group_that_is_preempted_saves_and_says_so_by_its_status(train, tmp_path):
    mark = f"seed={os.getpid() + 2}"
    launcher = train(*RUN, mark, "trainer.max_epochs=500", "checkpoint_minutes=null")
    wait_until(lambda: has_trained(tmp_path))
    launcher.terminate()
    status, said = ended(launcher, timeout=60)
    assert status == 75, said
    assert "Preempted. This continues where it stopped" in said
    assert alive(mark) == []
    [record] = records(tmp_path)
    assert record["status"] == "interrupted"


def test_a_message_of_all_processes_is_printed_once(train, tmp_path):
    status, said = ended(train(*RUN, "optimizer.lr=1e30"))
    assert status == 2, said
    assert said.count("stopped being a number") == 1
    assert "Traceback" not in said
    [record] = records(tmp_path)
    assert "stopped being a number" in record["error"]
