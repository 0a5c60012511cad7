"""Run and record the jobs of a sweep, in any launcher's processes."""

from __future__ import annotations

import math
import shlex
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from amtml_pl.config.call import ONE_RUN
from amtml_pl.config.command import user_config_folders
from amtml_pl.config.override_errors import command_line_mistakes
from amtml_pl.config.overrides import STARTS_AGAIN, key_of
from amtml_pl.config.reporting import INTERRUPTED, command_state, report_mistake, report_typed, status_of_exit
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.identity import found_or_new, result_overrides, run_label, sweep_hash
from amtml_pl.runs.sweep_folder import SweepFolder, SweepJob
from amtml_pl.system.console import error_console, quieten
from amtml_pl.system.forked_job import ProcessCrashedError, can_fork, run_forked


@dataclass
class SweepContext:
    """Sweep that this process works for; ``sweep`` is None outside of one."""

    sweep: SweepFolder | None = None


sweep_context = SweepContext()


class SweepCallback(Callback):
    """Hydra's callback that passes the sweep's folder to every process of a sweep."""

    def __init__(self) -> None:
        self.sweep: SweepFolder | None = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Name the sweep's folder before any job; raise a SystemExit for a wrong override."""
        try:
            self.sweep = self.sweep_folder(config)
            if command_state.called:
                report_mistake(UserError(ONE_RUN, fix=self.sweep.repeat))
            sweep_context.sweep = self.sweep
        except Exception:  # Hydra would only warn, and continue without a record of the jobs
            traceback.print_exc()
            raise SystemExit(1) from None

    def sweep_folder(self, config: DictConfig) -> SweepFolder:
        """Return the folder of the sweep that a configuration describes."""
        hydra = config.hydra
        outputs = Path(OmegaConf.select(config, "paths.outputs") or "outputs").resolve()
        overrides: Any = OmegaConf.to_container(hydra.overrides)  # as typed, interpolations and all
        typed = overrides["task"]
        folders = user_config_folders(hydra)
        own = [f"hydra.searchpath=[{','.join(folders)}]"] if folders else []
        own += [word for word in overrides["hydra"] if word.startswith("hydra.searchpath=")]
        of_file = [f"{key}={value}" for key, value in (hydra.sweeper.get("params") or {}).items()]
        if mistakes := command_line_mistakes([*own, *typed, *of_file], "train"):
            report_typed(mistakes)
            raise SystemExit(2)
        sweeper: Any = OmegaConf.to_container(hydra.sweeper)
        label, digest = run_label(typed, left_out=()), sweep_hash(typed, sweeper)
        hydra_words = [o for o in overrides["hydra"] if not o.startswith("hydra.mode=")]
        named = [word for folder in folders for word in ("--config-dir", folder)]
        resuming = [word for word in typed if key_of(word) not in STARTS_AGAIN]
        repeat = shlex.join(["python", "-m", "amtml_pl.train", "--multirun", *named, *hydra_words, *resuming])
        return SweepFolder(found_or_new(outputs / "sweeps", label, digest), uuid.uuid4().hex, repeat)

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """Set the sweep in a worker process, too."""
        sweep_context.sweep = self.sweep


@dataclass(frozen=True)
class Outcome:
    """Error of a job's function, and the exit status after a signal."""

    reason: str = ""  # the message; empty without an error
    mistake: bool = False  # True if the user can correct it
    stopped: int | None = None  # the exit status


def run_job(train: Callable[[], object], sweep: SweepFolder) -> float:
    """Run one job of a sweep; record its beginning and its end.

    Returns:
        ``val/acc`` of the run's record; NaN for a job that has failed, or has no validation split.

    Raises:
        SystemExit: if a signal has ended the job.
    """
    hydra = HydraConfig.get()
    folder = RunFolder(Path(hydra.runtime.output_dir))
    typed: Any = OmegaConf.to_container(hydra.overrides.task)
    overrides = tuple(result_overrides(typed))
    number, run = int(hydra.job.num), str(folder.path)
    job = SweepJob(number, overrides, run=run, command=sweep.command, status="running")
    threads, may_fork = hydra.launcher.get("cpus_per_task"), hydra.launcher.get("may_fork", True)
    with sweep.hold_lock(overrides):
        sweep.write(job)
        try:
            if may_fork and can_fork():
                outcome = run_forked(lambda: attempt(train, threads))
            else:
                outcome = attempt(train, threads)
        except ProcessCrashedError as crash:
            error_console.print(f"[bold red]crashed:[/] {escape(str(crash))}")
            outcome = Outcome(str(crash))
        except (KeyboardInterrupt, SystemExit):
            sweep.write(replace(job, status="interrupted", reason="interrupted"))
            raise
        job = ended(job, folder, outcome)
        sweep.write(job)
    if outcome.stopped is not None:
        raise SystemExit(outcome.stopped)
    validation = None if job.accuracy is None else job.accuracy[0]
    return math.nan if validation is None else validation


def attempt(train: Callable[[], object], threads: int | None) -> Outcome:
    """Call a job's function and catch any error or exit."""
    quieten()
    command_state.mistakes.clear()
    if threads is not None:
        import torch  # only here: the process that launches needs none

        torch.set_num_threads(threads)
    try:
        train()
    except KeyboardInterrupt:
        return Outcome("interrupted", stopped=INTERRUPTED)
    except SystemExit as stop:
        if stop.code not in (None, 0, 1, 2):
            status = status_of_exit(stop)
            return Outcome(f"stopped with status {status}", stopped=status)
        if stop.code:
            return Outcome(f"exit status {stop.code}", mistake=stop.code == 2)
    except Exception as error:
        traceback.print_exc()
        return Outcome(f"{type(error).__name__}: {error}")
    return Outcome(command_state.mistakes[-1], mistake=True) if command_state.mistakes else Outcome()


def ended(job: SweepJob, folder: RunFolder, outcome: Outcome) -> SweepJob:
    """Return a job with its result from the run's record."""
    if outcome.reason or outcome.stopped is not None:
        status: Literal["failed", "interrupted"] = "failed" if outcome.stopped is None else "interrupted"
        return replace(job, status=status, reason=outcome.reason, mistake=outcome.mistake)
    try:
        record = folder.completed()
    except UserError as error:
        return replace(job, status="failed", reason=str(error), mistake=True)
    if record is None:
        return replace(job, status="failed", reason="the run folder has no run.json of a completed run")
    accuracy = record.metrics.get("val/acc"), record.metrics["test/acc"]
    return replace(job, status="completed", accuracy=accuracy, seconds=record.timed().fit_seconds)
