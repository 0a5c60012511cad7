"""Check that every part of a run trains as it should: ``python -m amtml_pl.doctor experiment=...``."""

from __future__ import annotations

from amtml_pl.config.checks import check_constructors, check_values
from amtml_pl.config.command import CommandJob, command
from amtml_pl.runs.folder import RunFolder
from amtml_pl.system.console import console


@command("doctor")
def main(job: CommandJob) -> None:
    """Check a prepared run, and write ``doctor.json``; exit with status 2 for a finding."""
    with job.reporting(own_folder=True):
        check_values(job.config)
        from amtml_pl.distill.doctor.report import show_checkup
        from amtml_pl.training.connect import connect, run_doctor
        from amtml_pl.training.pipeline import prepare
        from amtml_pl.training.plan import plan
        from amtml_pl.training.settings import settings_of
        from amtml_pl.training.stages import RunRequest

        check_constructors(job.config)
        folder = RunFolder(job.folder)
        planned = plan(RunRequest(settings_of(job.config), folder, job.experiment, job.typed()))
        found = run_doctor(connect(prepare(planned)), thoroughly=True)
        show_checkup(found)
        console.print(f"Written to {folder.doctor_file}", markup=False)
        found.refuse()


if __name__ == "__main__":
    main()
