"""``python -m amtml_pl.train experiment=...``: prepares what is missing, trains, tests once, and says so."""

from __future__ import annotations

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from amtml_pl.config import check, config_directory
from amtml_pl.entry_point import progress, reporting, start, typed
from amtml_pl.identity import register_resolvers
from amtml_pl.pipeline import execute
from amtml_pl.runs import RunFolder
from amtml_pl.sweep import current, run_job
from amtml_pl.sweep_conclusion import concluding

register_resolvers()


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's, 130 interrupted, 1 anything else."""
    concluding(lambda: start(run))


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="train")
def run(config: DictConfig) -> float:
    """One run; returns its validation accuracy, which a sweeper may maximise (NaN after a mistake)."""
    progress.begun = True
    # A job of a sweep is forked from here: whatever it needs is imported by now, once for all jobs.
    return train(config) if current.sweep is None else run_job(lambda: train(config), current.sweep)


def train(config: DictConfig) -> float:
    """The run that a configuration describes; returns as `run` does."""
    hydra_config = HydraConfig.get()
    folder = RunFolder(Path(hydra_config.runtime.output_dir))
    with reporting("amtml_pl.train", debug=config.get("debug", False), folder=folder.path):
        check(config)
        experiment = hydra_config.runtime.choices.get("experiment")
        record = execute(config, folder, experiment, typed("amtml_pl.train"))
        return float(record["metrics"]["val/acc"])
    return float("nan")


if __name__ == "__main__":
    main()
