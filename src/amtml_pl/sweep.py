"""A sweep from its first job to its leaderboard: no job ends the others, and every job's end is told."""

from __future__ import annotations

import math
import shlex
import sys
import traceback
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from textwrap import indent
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape
from rich.table import Table

from amtml_pl.entry_point import console, error_console, progress, quieten, report_mistake
from amtml_pl.errors import UserError
from amtml_pl.extras import imported
from amtml_pl.identity import register_resolvers, run_label, sweep_hash, telling_overrides
from amtml_pl.own_process import ProcessCrashedError, can_have_own_process, in_own_process
from amtml_pl.runs import RunFolder
from amtml_pl.sweep_folder import Job, SweepFolder

register_resolvers()  # a worker of a launcher names a job's folder before it knows any other module


# What brings the plugin that a launcher of conf/launcher/ needs.
EXTRAS = {
    "launcher=joblib": "joblib",
    "launcher=submitit_local": "submitit",
    "launcher=slurm": "submitit",
}


@dataclass
class Current:
    """The sweep that this process works for; None outside of one."""

    sweep: SweepFolder | None = None


current = Current()


class Bookkeeping(Callback):
    """Hydra's callback that tells every process of a sweep, wherever a launcher starts it, of its folder."""

    def __init__(self) -> None:
        self.sweep: SweepFolder | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401
        """Names the sweep's folder, before any job begins."""
        hydra = config.hydra
        outputs = Path(OmegaConf.select(config, "paths.outputs") or "outputs").resolve()
        overrides: Any = OmegaConf.to_container(hydra.overrides)  # as typed, interpolations and all
        typed = overrides["task"]
        label = run_label(typed, left_out=())
        sweeper: Any = OmegaConf.to_container(hydra.sweeper)
        name = f"{label}-{sweep_hash(typed, sweeper)}"
        told = [o for o in overrides["hydra"] if not o.startswith("hydra.mode=")]
        repeat = shlex.join(["python", "-m", "amtml_pl.train", "--multirun", *told, *typed])
        self.sweep = current.sweep = SweepFolder(outputs / "sweeps" / name, uuid.uuid4().hex, repeat)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:  # noqa: ANN401
        """Makes the sweep known in a worker, too."""
        current.sweep = self.sweep


@dataclass(frozen=True)
class Outcome:
    """How a job's function ended.

    Attributes:
        reason: why it has failed; empty where it has not.
        mistake: whether the user can mend that.
        stopped: the exit status of the process, where a signal has ended the job and thereby the sweep.
    """

    reason: str = ""
    mistake: bool = False
    stopped: int | None = None


def run_job(train: Callable[[], object], sweep: SweepFolder) -> float:
    """One job of a sweep: recorded when it begins and when it ends, however it does.

    Args:
        train: trains the run whose configuration Hydra has set.
        sweep: where the job is recorded.

    Returns:
        ``val/acc`` of the run's record; NaN for a job that has failed.

    Raises:
        SystemExit: if a signal has ended the job.
    """
    hydra = HydraConfig.get()
    folder = RunFolder(Path(hydra.runtime.output_dir))
    typed: Any = OmegaConf.to_container(hydra.overrides.task)
    overrides = tuple(telling_overrides(typed))
    job = Job(int(hydra.job.num), overrides, str(folder.path), sweep.command, "running")
    threads = hydra.launcher.get("cpus_per_task")
    with sweep.at_work(overrides):
        sweep.write(job)
        try:
            outcome = outcome_of(train, threads, may_fork=hydra.launcher.get("may_fork", True))
        except (KeyboardInterrupt, SystemExit):
            sweep.write(replace(job, status="interrupted", reason="interrupted"))
            raise
        job = ended(job, folder, outcome)
        sweep.write(job)
    if outcome.stopped is not None:
        raise SystemExit(outcome.stopped)
    return math.nan if job.accuracy is None else job.accuracy[0]


def outcome_of(train: Callable[[], object], threads: int | None, *, may_fork: bool) -> Outcome:
    """Runs a job in a process of its own where that can be had."""
    if not (may_fork and can_have_own_process()):
        return attempt(train, threads)
    try:
        return in_own_process(lambda: attempt(train, threads))
    except ProcessCrashedError as crash:
        error_console.print(f"[bold red]crashed:[/] {crash}")
        return Outcome(str(crash))


def attempt(train: Callable[[], object], threads: int | None) -> Outcome:
    """Calls a job's function and catches whatever it ends by.

    Args:
        train: the function.
        threads: of torch; None leaves what the launcher has set.
    """
    quieten()
    progress.mistakes.clear()
    if threads is not None:
        import torch  # only here: the process that launches needs none

        torch.set_num_threads(threads)
    try:
        train()
    except KeyboardInterrupt:
        return Outcome("interrupted", stopped=130)
    except SystemExit as stop:
        if stop.code not in (None, 0, 1, 2):
            status = stop.code if isinstance(stop.code, int) else 1
            return Outcome(f"stopped with status {status}", stopped=status)
        if stop.code:
            return Outcome(f"it ended with status {stop.code}", mistake=stop.code == 2)
    except Exception as error:
        traceback.print_exc()
        return Outcome(f"{type(error).__name__}: {error}")
    return Outcome(progress.mistakes[-1], mistake=True) if progress.mistakes else Outcome()


def ended(job: Job, folder: RunFolder, outcome: Outcome) -> Job:
    """A job with its result, which only the run's own record can tell."""
    if outcome.stopped is not None:
        return replace(job, status="interrupted", reason=outcome.reason)
    if outcome.reason:
        return replace(job, status="failed", reason=outcome.reason, mistake=outcome.mistake)
    try:
        record = folder.completed()
    except UserError as error:
        return replace(job, status="failed", reason=str(error), mistake=True)
    if record is None:
        return replace(job, status="failed", reason="it ended without a completed run.json")
    accuracy = record["metrics"]["val/acc"], record["metrics"]["test/acc"]
    return replace(job, status="completed", accuracy=accuracy, seconds=record["timing"]["fit_seconds"])


def concluding(begin: Callable[[], None]) -> None:
    """Runs a command; a sweep ends with its leaderboard, its failures and what goes on with it.

    Exit status of a sweep: 0 if all jobs have completed, 2 if all others are a mistake of the user's,
    130 after Ctrl-C, 1 otherwise.
    """
    current.sweep, status = None, 0
    try:
        refuse_missing_launcher(sys.argv[1:])
        begin()
    except KeyboardInterrupt:
        status = 130
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    if current.sweep is not None:
        begun = conclude(current.sweep)
        status = exit_status(status, begun)
        if status and begun:
            said = "Interrupted. This goes on" if status == 130 else "This retries what has failed"
            repeat = escape(current.sweep.repeat)
            error_console.print(f"{said}; what is completed is not repeated:\n  {repeat}")
    if status:
        sys.exit(status)


def refuse_missing_launcher(words: Sequence[str]) -> None:
    """Ends a command that chooses a launcher which is not installed: Hydra could not say what brings it."""
    for word in words:
        if extra := EXTRAS.get(word):
            try:
                imported(f"hydra_plugins.hydra_{extra}_launcher", extra=extra)
            except UserError as error:
                report_mistake(error)


def conclude(sweep: SweepFolder) -> list[Job]:
    """Prints the leaderboard and the failures; returns the jobs that this command has begun."""
    if not (sweep.path / "jobs").is_dir():
        return []
    jobs = sweep.publish()
    console.print(leaderboard(jobs))
    console.print(f"The leaderboard is kept in {sweep.leaderboard_file}")
    begun = [job for job in jobs if job.command == sweep.command]
    if failed := [job for job in jobs if job.status == "failed"]:
        error_console.print(f"[bold red]{len(failed)} of {len(jobs)} jobs failed[/]:")
        for job in failed:
            told = f"{own_overrides(job, jobs)}\n{indent(job.reason, '  ')}"
            error_console.print(escape(indent(told, "  ")))
    return begun


def leaderboard(jobs: Sequence[Job]) -> Table:
    """A sweep's jobs for a person."""
    shown = Table(title="Leaderboard", title_justify="left")
    for column in ("job", "status"):
        shown.add_column(column)
    for column in ("val/acc", "test/acc"):
        shown.add_column(column, justify="right")
    for job in jobs:
        accuracy = [f"{value:.4f}" for value in job.accuracy or ()] or ["", ""]
        shown.add_row(escape(own_overrides(job, jobs)), job.status, *accuracy)
    return shown


def own_overrides(job: Job, jobs: Sequence[Job]) -> str:
    """A job's overrides without those that all jobs of its sweep have."""
    shared = set.intersection(*(set(each.overrides) for each in jobs))
    return " ".join(o for o in job.overrides if o not in shared) or f"job {job.number}"


def exit_status(status: int, begun: Sequence[Job]) -> int:
    """What a sweep's command ends with.

    Args:
        status: what Hydra would have ended with.
        begun: the jobs that the command has begun.
    """
    if status not in (0, 1, 2) or not begun:
        return status
    others = [job for job in begun if job.status != "completed"]
    if not others:
        return 1 if status else 0  # the launcher itself has failed
    return 2 if all(job.mistake for job in others) else 1
