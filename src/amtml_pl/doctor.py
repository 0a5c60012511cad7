"""``python -m amtml_pl.doctor experiment=...``: does every part of a run train what it claims to?"""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from amtml_pl.config.checks import check_constructors, check_values
from amtml_pl.config.command import progress, reporting, start, typed
from amtml_pl.config.paths import config_directory
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.identity import register_resolvers
from amtml_pl.system.console import console

register_resolvers()


def main() -> None:
    """The command line. Exit status: 0 healthy, 2 a finding or a mistake of the user's."""
    start(run)


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="doctor")
def run(config: DictConfig) -> None:
    """Prepares what the run needs, examines it and its teachers, writes ``doctor.json``, trains nothing."""
    progress.begun = True
    hydra_config = HydraConfig.get()
    folder = RunFolder(Path(hydra_config.runtime.output_dir))
    with reporting("amtml_pl.doctor", debug=config.get("debug", False), folder=folder.path, resumes=False):
        # only here: torch takes seconds, in which a mistake is reported, and Ctrl-C ends, like everywhere
        check_values(config)
        from amtml_pl.distill.doctor.report import show_checkup
        from amtml_pl.training.connect import connect, examine
        from amtml_pl.training.pipeline import prepare
        from amtml_pl.training.settings import settings_of
        from amtml_pl.training.stages import RunRequest, plan

        check_constructors(config)
        experiment = hydra_config.runtime.choices.get("experiment")
        planned = plan(RunRequest(settings_of(config), folder, experiment, typed("amtml_pl.doctor")))
        found = examine(connect(prepare(planned)), thoroughly=True)
        show_checkup(found)
        console.print(f"Written to {folder.doctor_file}", markup=False)
        found.refuse()


if __name__ == "__main__":
    main()
