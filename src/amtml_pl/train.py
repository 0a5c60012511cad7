"""``python -m amtml_pl.train experiment=...``: prepares what is missing, trains, tests once, and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from amtml_pl.config.checks import check_constructors, check_values
from amtml_pl.config.command import progress, reporting, start, typed, typed_words
from amtml_pl.config.overrides import hydra_literal
from amtml_pl.config.paths import config_directory
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.identity import register_resolvers
from amtml_pl.training.sweep.conclusion import concluding
from amtml_pl.training.sweep.jobs import current, run_job

register_resolvers()


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's, 130 interrupted, 1 anything else."""
    concluding(lambda: start(run))


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="train")
def run(config: DictConfig) -> float:
    """One run; returns its validation accuracy, which a sweeper may maximise (NaN after a mistake)."""
    progress.begun = True
    if current.sweep is None:
        return train(config)
    import amtml_pl.training.pipeline  # noqa: F401 - jobs are forked from here, and need not import it each

    return run_job(lambda: train(config), current.sweep)


def train(config: DictConfig) -> float:
    """The run that a configuration describes; returns as `run` does."""
    hydra_config = HydraConfig.get()
    folder = RunFolder(Path(hydra_config.runtime.output_dir))
    with reporting("amtml_pl.train", debug=config.get("debug", False), folder=folder.path):
        check_values(config)
        from amtml_pl.system.launch import processes_wanted, run_in_group
        from amtml_pl.training.pipeline import execute
        from amtml_pl.training.preflight import check_parts
        from amtml_pl.training.settings import settings_of
        from amtml_pl.training.stages import RunRequest

        check_constructors(config)
        settings = settings_of(config)
        check_parts(settings)
        experiment = hydra_config.runtime.choices.get("experiment")
        trainer = config.trainer
        processes = processes_wanted(trainer.devices, trainer.num_nodes, trainer.accelerator)
        if processes > 1:
            run_in_group(["-m", "amtml_pl.train", *overrides_of_one_run()], processes)
            record = folder.completed()
        else:
            record = execute(RunRequest(settings, folder, experiment, typed("amtml_pl.train")))
        return float("nan") if record is None else record.metrics["val/acc"]
    return float("nan")


def overrides_of_one_run() -> list[str]:
    """What composes this run, be it one of a sweep's, in another process."""
    told = HydraConfig.get()
    directory = hydra_literal(told.runtime.output_dir)
    hydra_s: Any = OmegaConf.to_container(told.overrides.hydra)
    callbacks = [word for word in hydra_s if word.lstrip("+").startswith("hydra.callbacks")]
    return [*typed_words("amtml_pl.train"), *callbacks, "hydra.mode=RUN", f"++hydra.run.dir={directory}"]


if __name__ == "__main__":
    main()
