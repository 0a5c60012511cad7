"""A run that is interrupted at any instant and repeated has the files of an uninterrupted run."""

import os
import shutil
import signal
import sys
import time

import numpy as np
import pytest
from interruptions import KINDS, after, ended, in_a_process, when_called, when_written
from run_contents import contents, different

from amtml_pl.runs.folder import RunFolder

WITHOUT = ("doctor=false", "dataset.source.test_fraction=0.05")

INSTANTS = {
    "while data are packed": when_written("*/packed/digits-*"),
    "while a teacher trains": when_called("on_validation_start", 4, of_the_student=False),
    "before a record of a teacher is completed": when_written("teachers/*/*/run.json", 2),
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
    "before the record is completed": when_written("run/run.json", 2),
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
# Prepared once for all instants that do not concern it.
PREPARED = {"data": "while data", "teachers": "teacher", "cache": "cache"}
assert INSTANTS.keys() >= HALF
assert all(any(word in instant for instant in INSTANTS) for word in PREPARED.values())


@pytest.fixture
def job(train):
    """Train the job, fast, and return what its folder has."""
    return lambda checkpoint_minutes="null": train(*WITHOUT, f"checkpoint_minutes={checkpoint_minutes}")


WHOLE, LASTS = {}, []  # an uninterrupted run, and its seconds


@pytest.fixture
def whole(place, job):
    """Return the contents of an uninterrupted run; keep what it has prepared."""
    if not WHOLE:
        WHOLE.update(job())
        shutil.copytree(place, place.with_name("kept"))
    return WHOLE


def start_over(place, fresh=()):
    """Restore what was prepared, except the roots that a run must make."""
    shutil.rmtree(place)
    for name in PREPARED.keys() - fresh:
        shutil.copytree(place.with_name("kept") / name, place / name)


def interrupted(job, kind, instant, monkeypatch):
    """Return the end of a process that got signals at an instant."""

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


@pytest.mark.slow
def test_a_killed_run_whose_step_is_compiled_ends_with_the_same_files(train, place, monkeypatch):
    """Each in a process of its own, as the workers of a compiler do not survive a fork."""

    def compiled(minutes="null"):
        return train(*WITHOUT, "execution.compile=true", f"checkpoint_minutes={minutes}")

    def killed():
        instant = INSTANTS["while a checkpoint is written within an epoch"]
        instant(monkeypatch, lambda file: os.kill(os.getpid(), signal.SIGKILL))
        compiled(minutes=0)

    shutil.rmtree(place / "run", ignore_errors=True)
    assert ended(in_a_process(compiled)) == "completed"
    expected = contents(place / "run")
    shutil.rmtree(place / "run")
    assert ended(in_a_process(killed)) == "interrupted"
    assert ended(in_a_process(compiled)) == "completed"
    assert RunFolder(place / "run").completed().compiled
    assert different(contents(place / "run"), expected) == []


# Of each kind; a maintainer types INTERRUPTIONS=40 python -m pytest tests/faults -k any_moment; another SEED
# draws other moments.
INTERRUPTIONS = int(os.environ.get("INTERRUPTIONS", "1"))
SEED = int(os.environ.get("SEED", "0"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS if INTERRUPTIONS > 1 else ["SIGKILL", "two SIGINTs"])
def test_a_run_that_is_interrupted_at_any_moment_ends_with_the_same_files(job, whole, place, kind, capsys):
    start_over(place)
    if not LASTS:
        begun = time.monotonic()
        assert different(job(), whole) == []
        LASTS.append(time.monotonic() - begun)
    draw = np.random.default_rng([SEED, *kind.encode()])
    wrong, cut, sent = {}, 0, 0
    while cut < INTERRUPTIONS and sent < 3 * INTERRUPTIONS:  # some come when the run has ended
        sent += 1
        shutil.rmtree(place / "run", ignore_errors=True)
        child = in_a_process(job)
        after(child, draw.uniform(0, LASTS[0]), KINDS[kind], between=draw.choice([0.0, 0.002, 0.01, 0.05]))
        cut += ended(child) == "interrupted"
        if names := different(job(), whole):
            wrong[sent] = names
    with capsys.disabled():
        sys.stdout.write(f"\n{kind}: {sent} sent, {cut} interrupted, {len(wrong)} differ\n")
    assert wrong == {}
    assert cut == INTERRUPTIONS
