"""A run that is interrupted at any instant, and repeated, ends with every file that it would have had."""

import hashlib
import os
import shutil
import sys
import time

import numpy as np
import pytest
from interruptions import KINDS, after, ended, in_a_process, when_called, when_written
from run_contents import contents, different

from amtml_pl.runs.folder import RunFolder
from tiny_runs import WATCHED, trained

# Two epochs of four steps.
JOB = ("experiment=digits_amtml", *WATCHED, "doctor=false", "dataset.source.test_fraction=0.05")

INSTANTS = {
    "while data are packed": when_written("*/packed/digits-*"),
    "while a teacher trains": when_called("on_validation_start", 4, of_the_student=False),
    "before a record of a teacher says completed": when_written("teachers/*/*/run.json", 2),
    "while a cache shard is written": when_written("view-0001*.safetensors", 2),
    "before the first record": when_written("run/run.json"),
    "while the untrained state is saved": when_written("run/checkpoints/last.ckpt", step=0),
    "in the middle of an epoch": when_called("on_train_batch_start", 2),
    "while a checkpoint is written within an epoch": when_written("run/checkpoints/last.ckpt", step=2),
    "in validation": when_called("on_validation_batch_start", 4),
    "while the best epoch is saved": when_written("run/checkpoints/best.ckpt"),
    "between the table and the checkpoint of an epoch": when_written("run/checkpoints/last.ckpt", step=4),
    "while the test split is read": when_called("on_test_batch_start", 8),
    "while the student's weights are written": when_written("run/student.safetensors"),
    "before the record says completed": when_written("run/run.json", 2),
}
# Files of which a killed process may leave half under their temporary name.
HALF = {
    "while a cache shard is written", "while the untrained state is saved", "while the best epoch is saved",
    "while a checkpoint is written within an epoch", "while the student's weights are written",
}  # fmt: skip
# One instant of each part of a run, and of each kind of file. A run may answer SIGTERM in each part, and
# answers SIGINT likewise.
MATRIX = [("SIGKILL", instant) for instant in INSTANTS if instant != "in the middle of an epoch"] + [
    ("SIGTERM", "while a cache shard is written"), ("SIGTERM", "in the middle of an epoch"),
    ("SIGTERM", "in validation"), ("SIGTERM", "between the table and the checkpoint of an epoch"),
    ("SIGTERM", "while the test split is read"), ("SIGINT", "in the middle of an epoch"),
    ("two SIGINTs", "while a cache shard is written"), ("two SIGINTs", "in validation"),
]  # fmt: skip
# What is there already for all instants but those that are about it, to save the time.
PREPARED = {"data": "while data", "teachers": "teacher", "cache": "cache"}
assert INSTANTS.keys() >= HALF
assert all(any(word in instant for instant in INSTANTS) for word in PREPARED.values())


@pytest.fixture
def place(shared):
    """The folder of all runs of this file: what they end with names it."""
    return shared / "interrupted"


@pytest.fixture
def job(configure, place, monkeypatch):
    """The run, with figures that are small and quickly drawn."""
    monkeypatch.setattr("amtml_pl.training.dashboard.logger.pixels", numbers_shown)

    def go(checkpoint_minutes="null"):
        roots = [f"paths.{name}={place / name}" for name in ("outputs", *PREPARED)]
        folder = RunFolder(place / "run")
        config = configure(*JOB, *roots, f"checkpoint_minutes={checkpoint_minutes}")
        trained(config, folder, experiment="digits_amtml")
        return contents(folder.path)

    return go


def numbers_shown(figure):
    """Pixels that are other ones where a figure shows other numbers."""
    shown = [image.get_array().tobytes() for axes in figure.axes for image in axes.images]
    shown += [repr(bar.get_bbox()).encode() for axes in figure.axes for bar in axes.patches]
    return np.frombuffer(hashlib.sha384(b"".join(shown)).digest(), np.uint8).reshape(4, 4, 3)


WHOLE = {}


@pytest.fixture
def whole(place, job):
    """What the run ends with where nothing happens to it; what it has prepared is kept."""
    if not WHOLE:
        WHOLE.update(job())
        shutil.copytree(place, place.with_name("kept"))
    return WHOLE


def start_over(place, fresh=()):
    """Puts back what was prepared, but what a run is to make itself."""
    shutil.rmtree(place)
    for name in PREPARED.keys() - fresh:
        shutil.copytree(place.with_name("kept") / name, place / name)


def interrupted(job, kind, instant, monkeypatch):
    """Return how a process ended that got signals at an instant."""

    def happens(file):
        if kind == "SIGKILL" and instant in HALF:
            with file.open("r+b") as opened:
                opened.truncate(file.stat().st_size // 2)
        for number in KINDS[kind]:
            os.kill(os.getpid(), number)

    def run():
        INSTANTS[instant](monkeypatch, happens)
        # To the step: a run that is killed has nothing better than its last checkpoint.
        job(0 if kind == "SIGKILL" else "null")

    return ended(in_a_process(run))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "instant"), MATRIX)
def test_an_interrupted_run_ends_with_the_same_files(job, whole, place, kind, instant, monkeypatch):
    start_over(place, {name for name, concerned in PREPARED.items() if concerned in instant})
    with monkeypatch.context() as patch:
        assert interrupted(job, kind, instant, patch) == "interrupted", f"not reached: {instant}"
    assert different(job(), whole) == []
    hidden = [file.name for file in place.rglob(".*") if file.is_file()]
    assert [name for name in hidden if not name.endswith(".lock")] == []


# Of each kind; a maintainer types INTERRUPTIONS=40 python -m pytest tests/faults -k any_moment; another SEED
# draws other moments.
INTERRUPTIONS = int(os.environ.get("INTERRUPTIONS", "1"))
SEED = int(os.environ.get("SEED", "0"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS if INTERRUPTIONS > 1 else ["SIGKILL", "two SIGINTs"])
def test_a_run_that_is_interrupted_at_any_moment_ends_with_the_same_files(job, whole, place, kind, capsys):
    start_over(place)
    begun = time.monotonic()
    assert different(job(), whole) == []
    lasts = time.monotonic() - begun
    draw = np.random.default_rng([SEED, *kind.encode()])
    wrong, cut, sent = {}, 0, 0
    while cut < INTERRUPTIONS and sent < 3 * INTERRUPTIONS:  # some come when the run has ended
        sent += 1
        shutil.rmtree(place / "run")
        child = in_a_process(job)
        after(child, draw.uniform(0, lasts), KINDS[kind], between=draw.choice([0.0, 0.002, 0.01, 0.05]))
        cut += ended(child) == "interrupted"
        if names := different(job(), whole):
            wrong[sent] = names
    with capsys.disabled():
        sys.stdout.write(f"\n{kind}: {sent} sent, {cut} interrupted, {len(wrong)} differ\n")
    assert wrong == {}
    assert cut == INTERRUPTIONS
