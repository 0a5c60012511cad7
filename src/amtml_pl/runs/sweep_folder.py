"""A sweep's folder: the state of each job, and the leaderboard of all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from filelock import FileLock

from amtml_pl.system.files import is_held, short_digest, write_text


@dataclass(frozen=True)
class SweepJob:
    """One job of a sweep, in the state after its last attempt.

    Attributes:
        number: its place in the sweep, from 0.
        command: a unique text for the sweep's command that began the last attempt.
        status: ``interrupted`` means not ended and no longer running.
        reason: why it has not completed.
        mistake: True if the user can correct the reason.
        accuracy: ``val/acc``, None without a validation split, and ``test/acc`` of the run's record, if the
            job has completed.
        seconds: ``fit_seconds`` of the run's record, over all attempts.
    """

    number: int
    overrides: tuple[str, ...]
    run: str
    command: str
    status: Literal["running", "completed", "failed", "interrupted"]
    reason: str = ""
    mistake: bool = False
    accuracy: tuple[float | None, float] | None = None
    seconds: float | None = None


class SweepFolder:
    """A folder with ``leaderboard.csv``, ``sweep.json``, and in ``jobs/`` a file and a lock per job.

    Processes on any machines that see the folder may write to it at once.

    Args:
        path: the folder; created by the first job.
        command: of this attempt, see `SweepJob`.
        repeat: the command line that continues the sweep.
    """

    def __init__(self, path: Path, command: str, repeat: str) -> None:
        self.path = path
        self.command = command
        self.repeat = repeat
        self.leaderboard_file = path / "leaderboard.csv"
        self.summary_file = path / "sweep.json"

    @contextmanager
    def hold_lock(self, overrides: Sequence[str]) -> Iterator[None]:
        """Hold a job's lock, which marks it as running until the process ends."""
        file = self.job_file(overrides)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            yield

    def write(self, job: SweepJob) -> None:
        """Record this process's job, and update the leaderboard."""
        write_text(self.job_file(job.overrides), json.dumps(asdict(job), indent=2) + "\n")
        self.publish()

    def publish(self) -> list[SweepJob]:
        """Rewrite the leaderboard from the jobs' files, and return the jobs, best first."""
        self.path.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path / ".lock"):  # written by one at a time
            jobs = self.jobs()
            summary = {"format": 2, "command": self.repeat, "jobs": [asdict(job) for job in jobs]}
            write_text(self.summary_file, json.dumps(summary, indent=2) + "\n")
            write_text(self.leaderboard_file, _leaderboard(jobs))
        return jobs

    def jobs(self) -> list[SweepJob]:
        """Return all begun jobs, best validation accuracy first, then in the sweep's order."""
        jobs = [_read_job(file) for file in self.path.glob("jobs/[!.]*.json")]
        return sorted(jobs, key=by_validation)

    def job_file(self, overrides: Sequence[str]) -> Path:
        """Return the file of a job, by its overrides, as its number may change."""
        return self.path / "jobs" / f"{short_digest(json.dumps(list(overrides)), digits=12)}.json"


def by_validation(job: SweepJob) -> tuple[bool, float, int]:
    """Return the sort key of a job: completed, validation accuracy downwards, number."""
    validation = None if job.accuracy is None else job.accuracy[0]
    return job.accuracy is None, 0.0 if validation is None else -validation, job.number


def _read_job(file: Path) -> SweepJob:
    """Return a job, ``interrupted`` if its process is gone; a UserError for damage."""
    from amtml_pl.system.records import read_record

    job = read_record(SweepJob, file, fix=f"remove the file, then repeat the command: rm '{file}'")
    if job.status != "running" or is_held(file.with_suffix(".lock")):
        return job
    return replace(job, status="interrupted", reason="the process of the job ended without a message")


def _leaderboard(jobs: Sequence[SweepJob]) -> str:
    """Return the leaderboard as CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("job", "status", "val/acc", "test/acc", "seconds", "overrides", "run", "reason"))
    for job in jobs:
        seconds = "" if job.seconds is None else round(job.seconds, 3)
        reason = " ".join(job.reason.split())  # a row is a line
        overrides = " ".join(job.overrides)
        accuracy = job.accuracy or (None, None)
        rows.writerow((job.number, job.status, *accuracy, seconds, overrides, job.run, reason))
    return text.getvalue()
