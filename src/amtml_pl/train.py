"""Prepare what is missing, train, and test once: ``python -m amtml_pl.train experiment=...``."""

from __future__ import annotations

from amtml_pl.config.checks import check_constructors, check_values
from amtml_pl.config.command import CommandJob, command
from amtml_pl.runs.folder import RunFolder
from amtml_pl.training.sweep.conclusion import with_leaderboard
from amtml_pl.training.sweep.jobs import run_job, sweep_context


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
        check_values(job.config)
        from amtml_pl.system.launch import launch_ranks, processes_wanted
        from amtml_pl.training.pipeline import execute
        from amtml_pl.training.preflight import check_parts
        from amtml_pl.training.settings import settings_of
        from amtml_pl.training.stages import RunRequest

        check_constructors(job.config)
        settings = settings_of(job.config)
        check_parts(settings)
        trainer = job.config.trainer
        processes = processes_wanted(trainer.devices, trainer.num_nodes, trainer.accelerator)
        if processes > 1:
            launch_ranks(["-m", "amtml_pl.train", *job.words_without_sweep()], processes)
            record = folder.completed()
        else:
            record = execute(RunRequest(settings, folder, job.experiment, job.typed()))
        return float("nan") if record is None else record.metrics.get("val/acc", float("nan"))
    return float("nan")


if __name__ == "__main__":
    main()
