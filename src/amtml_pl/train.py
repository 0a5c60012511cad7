"""``python -m amtml_pl.train experiment=...``: prepares what is missing, trains, tests once, and says so."""

from __future__ import annotations

import logging
import shlex
import sys
import traceback
import warnings
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from amtml_pl.config import check, config_directory, register_resolvers
from amtml_pl.errors import UserError
from amtml_pl.pipeline import execute
from amtml_pl.runs import RunFolder

register_resolvers()


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's, 130 interrupted, 1 anything else."""
    quieten()
    try:
        run()
    except SystemExit as stop:
        # Hydra ends with 1 for a mistake in the command, before any job has begun.
        if stop.code == 1 and not HydraConfig.initialized():
            sys.exit(2)
        raise


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="train")
def run(config: DictConfig) -> float:
    """One run; returns its validation accuracy, which a sweeper may maximise."""
    hydra_config = HydraConfig.get()
    folder = RunFolder(Path(hydra_config.runtime.output_dir))
    command = shlex.join(["python", "-m", "amtml_pl.train", *hydra_config.overrides.task])
    try:
        check(config)
        record = execute(config, folder, hydra_config.runtime.choices.get("experiment"), command)
    except UserError as error:
        if config.debug:
            traceback.print_exc()
        if folder.path.is_dir() and not any(folder.path.iterdir()):
            folder.path.rmdir()  # Hydra makes it before anything is checked
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"[bold red]error:[/] {escape(str(error))}"
        )
        sys.exit(2)
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"Interrupted. This continues where it stopped:\n  {escape(command)}"
        )
        sys.exit(130)
    return float(record["metrics"]["val/acc"])


def quieten() -> None:
    """Keeps what a user can act on: Lightning's advertisements and advice that does not apply are muted."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Whole batches are made by one tensor operation; workers would only cost.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # An epoch of a small data set has fewer steps than Lightning logs after.
    warnings.filterwarnings("ignore", ".*number of training batches .* smaller than the logging interval.*")


if __name__ == "__main__":
    main()
