"""End of a sweep's command: leaderboard, failures, and the command to continue."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from textwrap import indent

from rich.markup import escape
from rich.table import Table

from amtml_pl.config.overrides import without_common
from amtml_pl.config.reporting import INTERRUPTED, report_mistake, status_of_exit
from amtml_pl.errors import UserError
from amtml_pl.runs.sweep_folder import SweepFolder, SweepJob
from amtml_pl.system.console import console, error_console
from amtml_pl.system.optional_packages import imported
from amtml_pl.system.signals import prepare_to_end
from amtml_pl.training.sweep.jobs import sweep_context

# The extra that installs a launcher's plugin.
EXTRAS = {"launcher=joblib": "joblib", "launcher=submitit_local": "submitit", "launcher=slurm": "submitit"}


def with_leaderboard(begin: Callable[[], None]) -> None:
    """Run a command; after a sweep print leaderboard, failures and the command to continue.

    Exit status of a sweep: 0 if all jobs have completed, 2 if all others failed by user errors, 130 after
    Ctrl-C, 1 otherwise.
    """
    status = 0
    try:
        refuse_missing_launcher(sys.argv[1:])
        begin()
    except KeyboardInterrupt:
        prepare_to_end()
        status = INTERRUPTED
    except SystemExit as stop:
        status = status_of_exit(stop)
    finally:
        sweep, sweep_context.sweep = sweep_context.sweep, None  # a later run of this process is not its job
    if sweep is not None:
        begun = conclude(sweep)
        status = exit_status(status, begun)
        if status and begun:
            aim = "resume the interrupted sweep" if status == INTERRUPTED else "retry the failed jobs"
            repeat = escape(sweep.repeat)
            error_console.print(f"To {aim}, repeat the command (completed jobs are skipped):\n  {repeat}")
    if status:
        sys.exit(status)


def refuse_missing_launcher(words: Sequence[str]) -> None:
    """Exit if a command's launcher is not installed, and name its package."""
    for word in words:
        if extra := EXTRAS.get(word):
            try:
                imported(f"hydra_plugins.hydra_{extra}_launcher", extra=extra)
            except UserError as error:
                report_mistake(error)


def conclude(sweep: SweepFolder) -> list[SweepJob]:
    """Print leaderboard and failures; return the jobs that this command has begun."""
    if not (sweep.path / "jobs").is_dir():
        return []
    jobs, table = sweep.publish(), Table(title="Leaderboard", title_justify="left")
    for column in ("job", "status", "val/acc", "test/acc"):
        table.add_column(column, justify="right" if "/" in column else "left")
    for job in jobs:
        accuracy = ["" if value is None else f"{value:.4f}" for value in job.accuracy or (None, None)]
        table.add_row(escape(own_overrides(job, jobs)), escape(job.status), *accuracy)
    console.print(table)
    console.print(f"Written to {sweep.leaderboard_file}", markup=False)
    begun = [job for job in jobs if job.command == sweep.command]
    if failed := [job for job in jobs if job.status == "failed"]:
        error_console.print(f"[bold red]{len(failed)} of {len(jobs)} jobs failed[/]:")
        for job in failed:
            text = f"{own_overrides(job, jobs)}\n{indent(job.reason, '  ')}"
            error_console.print(escape(indent(text, "  ")))
    return begun


def own_overrides(job: SweepJob, jobs: Sequence[SweepJob]) -> str:
    """Return a job's overrides without those that all jobs share."""
    own = without_common(job.overrides, [each.overrides for each in jobs])
    return " ".join(own) or f"job {job.number}"


def exit_status(status: int, begun: Sequence[SweepJob]) -> int:
    """Return the exit status of a sweep's command."""
    if status not in (0, 1, 2) or not begun:
        return status
    others = [job for job in begun if job.status != "completed"]
    if not others:
        return 1 if status else 0  # the launcher itself has failed
    return 2 if all(job.mistake for job in others) else 1
