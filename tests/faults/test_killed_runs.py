"""A run that is killed (SIGKILL) at any instant, and repeated, ends with the bits that it would have had."""

import csv
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from amtml_pl.pipeline import execute
from amtml_pl.runs import RunFolder
from amtml_pl.student_module import StudentModule
from tiny_runs import TINY, assert_bitwise_equal, weights

# Two epochs of four steps; a checkpoint after each of them, but in the run that is not interrupted.
JOB = ("experiment=digits_amtml", *TINY)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def when_written(name, nth=1, *, half=False):
    """Dies before the nth file of that name gets it; ``half``: with half of it under the temporary name."""

    def arrange(monkeypatch):
        seen = []

        def around(original):
            def moved(path, target):
                if Path(target).match(name):
                    seen.append(target)
                    if len(seen) == nth:
                        if half:
                            with path.open("r+b") as file:
                                file.truncate(path.stat().st_size // 2)
                        die()
                return original(path, target)

            return moved

        monkeypatch.setattr(Path, "replace", around(Path.replace))
        monkeypatch.setattr(Path, "rename", around(Path.rename))

    return arrange


def when_called(method, nth, *, of_the_student=True):
    """Dies at the nth call of a method of the training module, of the student's or of its first teacher's."""

    def arrange(monkeypatch):
        calls = []
        on_fit_start = StudentModule.on_fit_start

        def begun(self):
            calls.clear()
            self.is_watched = (self.teacher_source is not None) == of_the_student
            on_fit_start(self)

        monkeypatch.setattr(StudentModule, "on_fit_start", begun)
        owner = next(c for c in (StudentModule, *subclasses(StudentModule)) if method in vars(c))
        original = getattr(owner, method)

        def counted(self, *arguments, **named):
            if getattr(self, "is_watched", False):
                calls.append(method)
                if len(calls) == nth:
                    die()
            return original(self, *arguments, **named)

        monkeypatch.setattr(owner, method, counted)

    return arrange


def subclasses(kind):
    return [c for child in kind.__subclasses__() for c in (child, *subclasses(child))]


INSTANTS = {
    "while data are packed": when_written("*/packed/digits-*"),
    "while a teacher trains": when_called("evaluate", 1, of_the_student=False),
    "before a record of a teacher says completed": when_written("teachers/*/*/run.json", 2),
    "after the first of two teachers": when_written("teachers/*/*/config.yaml", 2),
    "while the cache's manifest is written": when_written("*/manifest.json", half=True),
    "while a cache shard is written": when_written("view-0001*.safetensors", 2, half=True),
    "between two views of the cache": when_written("view-0002*.safetensors"),
    "while the configuration is written": when_written("run/config.yaml"),
    "before the first record": when_written("run/run.json"),
    "while the untrained state is saved": when_written("run/checkpoints/last.ckpt", half=True),
    "in the first step": when_called("count", 1),
    "in the middle of an epoch": when_called("count", 3),
    "while a checkpoint is written in the middle of an epoch": when_written(
        "run/checkpoints/last.ckpt", 3, half=True
    ),
    "in validation": when_called("evaluate", 1),
    "while the best epoch is saved": when_written("run/checkpoints/best.ckpt", half=True),
    "before the table of epochs has its row": when_written("run/metrics.csv"),
    "between the table and the checkpoint of an epoch": when_written("run/checkpoints/last.ckpt", 4),
    "in the second epoch": when_called("count", 6),
    "while the test split is read": when_called("test_step", 1),
    "while the student's weights are written": when_written("run/student.safetensors", half=True),
    "before the record says completed": when_written("run/run.json", 2),
}


# What is there already for all instants but those that are about it, to save the time.
PREPARED = {"data": "while data", "teachers": "teacher"}


@pytest.fixture
def job(tmp_path, configure, shared):
    """The run in a folder where nothing is yet."""

    def go(instant="", checkpoint_minutes=0):
        fresh = {name for name, concerned in PREPARED.items() if concerned in instant}
        roots = {name: tmp_path if name in fresh else shared for name in PREPARED}
        places = [f"paths.{name}={root / name}" for name, root in roots.items()]
        places += [f"paths.{name}={tmp_path / name}" for name in ("outputs", "cache")]
        folder = RunFolder(tmp_path / "run")
        config = configure(*JOB, *places, f"checkpoint_minutes={checkpoint_minutes}")
        execute(config, folder, "digits_amtml", "the command")
        return folder

    return go


@pytest.fixture(scope="module")
def whole():
    """What the run ends with where nothing happens to it; filled by the first test that asks."""
    return {}


def fill(whole, job, tmp_path):
    if not whole:
        folder = job(checkpoint_minutes="null")
        whole.update(weights=weights(folder), metrics=folder.completed()["metrics"], rows=rows(folder))
        whole["state"] = torch.load(folder.last_checkpoint, weights_only=True)["state_dict"]
        for place in ("run", "cache", "outputs"):
            shutil.rmtree(tmp_path / place, ignore_errors=True)


def rows(folder):
    with folder.metrics_file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def killed(job, instant, monkeypatch):
    """Whether the run, in a process of its own, was killed."""
    child = os.fork()  # torch has one thread here, see conftest.py
    if child == 0:
        try:
            INSTANTS[instant](monkeypatch)
            job(instant)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("instant", INSTANTS)
def test_a_run_that_is_killed_and_repeated_ends_with_the_same_bits(
    job, whole, instant, monkeypatch, tmp_path
):
    fill(whole, job, tmp_path)
    assert killed(job, instant, monkeypatch)
    folder = job(instant)
    assert_bitwise_equal(weights(folder), whole["weights"])
    state = torch.load(folder.last_checkpoint, weights_only=True)["state_dict"]
    assert_bitwise_equal(state, whole["state"])
    assert folder.completed()["metrics"] == whole["metrics"]
    assert rows(folder) == whole["rows"]
    assert [file.name for file in tmp_path.rglob(".*") if file.is_file() and file.name != ".lock"] == []
