"""Prepare what is missing, train, and test once: ``python -m amtml_pl.train experiment=...``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from amtml_pl.config.call import call
from amtml_pl.config.checks import check_constructors, check_values
from amtml_pl.config.command import CommandJob, command
from amtml_pl.config.ignored import ignored_coefficients, show_ignored
from amtml_pl.config.reporting import command_state
from amtml_pl.config.teacher_recipe import chosen
from amtml_pl.errors import UserError
from amtml_pl.runs.folder import RunFolder
from amtml_pl.training.sweep.conclusion import with_leaderboard
from amtml_pl.training.sweep.jobs import run_job, sweep_context

if TYPE_CHECKING:
    from amtml_pl.results.run import FinishedRun
    from amtml_pl.training.settings import Settings


def main() -> None:
    """Run the command line; exit with status 130 after SIGINT, 75 after SIGTERM."""
    with_leaderboard(run)


@command("train")
def run(job: CommandJob) -> float:
    """Train one run, as a sweep's job if in one, and return its validation accuracy."""
    if sweep_context.sweep is None:
        return train(job)
    import amtml_pl.training.pipeline  # noqa: F401 - forked jobs then share this import

    return run_job(lambda: train(job), sweep_context.sweep)


def train(job: CommandJob) -> float:
    """Train one run, or start its ranks; return its validation accuracy, NaN without one."""
    folder = RunFolder(job.folder)
    with job.reporting(own_folder=True, resumes=True):
        settings = checked_settings(job)
        from amtml_pl.system.launch import launch_ranks, processes_wanted
        from amtml_pl.training.pipeline import execute
        from amtml_pl.training.stages import RunRequest

        trainer = job.config.trainer
        processes = processes_wanted(trainer.devices, trainer.num_nodes, trainer.accelerator)
        if processes > 1:
            if command_state.called:
                raise UserError(
                    f"A Python call trains in one process (got trainer.devices={trainer.devices} and "
                    f"trainer.num_nodes={trainer.num_nodes}, expected one device).",
                    fix=f"pass trainer.devices=1, or run in a terminal: {job.typed()}",
                )
            launch_ranks(["-m", "amtml_pl.train", *job.words_without_sweep()], processes)
            record = folder.completed()
        else:
            terms = [str(name) for name in job.config.loss]
            show_ignored(chosen("method"), job.ignored, ignored_coefficients(job.overrides, terms))
            choices = {group: name for group in ("method", "student") if (name := chosen(group))}
            record = execute(RunRequest(settings, folder, job.experiment, job.typed(), choices))
        return float("nan") if record is None else record.metrics.get("val/acc", float("nan"))
    return float("nan")


def checked_settings(job: CommandJob) -> Settings:
    """Return the settings of a job; most mistakes are found before torch is imported."""
    check_values(job.config)
    from amtml_pl.training.preflight import check_parts
    from amtml_pl.training.settings import settings_of

    check_constructors(job.config)
    settings = settings_of(job.config)
    check_parts(settings)
    return settings


def run_experiment(*overrides: str) -> FinishedRun:
    """Train one run in this process, as the command does, and open its folder.

    ``run_experiment("experiment=digits_amtml", "seed=1")`` is ``python -m amtml_pl.train
    experiment=digits_amtml seed=1``: the same folder, checks and record. A completed run is not repeated,
    and an interrupted one is resumed. Sweeps and several processes need the command.

    Args:
        overrides: arguments of the command, one in each string, without a shell's quotes.

    Returns:
        The completed run, as `amtml_pl.load_run` opens it.

    Raises:
        UserError: for a mistake that ends the command with status 2.
        Interrupted: after Ctrl-C or a kernel's interrupt; a KeyboardInterrupt. The same call resumes the run.
    """

    def trained(job: CommandJob) -> Path:
        train(job)
        return job.folder

    folder = call("train", trained, overrides)
    from amtml_pl.results.run import load_run

    return load_run(folder)


if __name__ == "__main__":
    main()
