"""A sweep's folder: its leaderboard is complete at any time, with any number of writers."""

import csv
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest

from amtml_pl.runs.sweep_folder import SweepFolder, SweepJob


@pytest.fixture
def folder(tmp_path):
    return SweepFolder(tmp_path / "sweep", "this command", "python -m amtml_pl.train -m seed=0,1")


def job(number, status="completed", accuracy=None, **fields):
    place = f"runs/{number}"
    return SweepJob(number, (f"seed={number}",), place, "this command", status, accuracy=accuracy, **fields)


def rows(folder):
    with folder.leaderboard_file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_the_leaderboard_has_the_best_job_first_and_all_others_behind_it(folder):
    folder.write(job(0, accuracy=(0.5, 0.4), seconds=2.0))
    folder.write(job(1, "failed", reason="lr=0\nFix: lr=1", mistake=True))
    folder.write(job(2, accuracy=(0.7, 0.6), seconds=3.0))
    assert [row["job"] for row in rows(folder)] == ["2", "0", "1"]
    best, _, failed = rows(folder)
    assert (best["val/acc"], best["test/acc"], best["seconds"]) == ("0.7", "0.6", "3.0")
    assert (failed["status"], failed["reason"]) == ("failed", "lr=0 Fix: lr=1")
    summary = json.loads(folder.summary_file.read_text())
    assert summary["command"] == "python -m amtml_pl.train -m seed=0,1"
    assert [listed["overrides"] for listed in summary["jobs"]] == [["seed=2"], ["seed=0"], ["seed=1"]]


def test_a_repeated_job_replaces_its_first_attempt(folder):
    folder.write(job(3, "failed", reason="no"))
    folder.write(replace(job(7, accuracy=(0.5, 0.4)), overrides=("seed=3",)))
    (row,) = rows(folder)
    assert (row["job"], row["status"], row["reason"]) == ("7", "completed", "")


def test_a_job_counts_as_running_only_while_its_process_holds_its_lock(folder):
    with folder.hold_lock(("seed=0",)):
        folder.write(job(0, "running"))
        assert [found.status for found in folder.jobs()] == ["running"]
    (left,) = folder.publish()
    assert left.status == "interrupted"
    assert "ended without a message" in left.reason
    assert rows(folder)[0]["status"] == "interrupted"


def write_several(folder, numbers):
    for number in numbers:
        with folder.hold_lock((f"seed={number}",)):
            folder.write(job(number, "running"))
            folder.write(job(number, accuracy=(number / 100, 0.5)))


def test_several_processes_that_write_at_once_lose_no_job(folder):
    with ProcessPoolExecutor(3) as pool:
        for done in [pool.submit(write_several, folder, range(k, 12, 3)) for k in range(3)]:
            done.result()
    assert [int(row["job"]) for row in rows(folder)] == list(range(11, -1, -1))
    assert not [file for file in folder.path.iterdir() if file.name.startswith(".") and file.name != ".lock"]
