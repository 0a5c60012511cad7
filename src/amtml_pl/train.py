"""``python -m amtml_pl.train experiment=...``: prepares what is missing, trains, tests once, and says so."""

from __future__ import annotations

import shlex
import sys
import traceback
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.markup import escape

from amtml_pl.config import check, config_directory
from amtml_pl.entry_point import error_console, progress, remove_untouched, report_mistake, start
from amtml_pl.errors import UserError
from amtml_pl.identity import register_resolvers
from amtml_pl.pipeline import execute
from amtml_pl.runs import RunFolder

register_resolvers()


def main() -> None:
    """The command line. Exit status: 0 done, 2 a mistake of the user's, 130 interrupted, 1 anything else."""
    start(run)


@hydra.main(version_base="1.3", config_path=str(config_directory()), config_name="train")
def run(config: DictConfig) -> float:
    """One run; returns its validation accuracy, which a sweeper may maximise (NaN after a mistake)."""
    progress.begun = True
    hydra_config = HydraConfig.get()
    folder = RunFolder(Path(hydra_config.runtime.output_dir))
    command = shlex.join(["python", "-m", "amtml_pl.train", *hydra_config.overrides.task])
    try:
        check(config)
        record = execute(config, folder, hydra_config.runtime.choices.get("experiment"), command)
    except UserError as error:
        if config.debug:
            traceback.print_exc()
        remove_untouched(folder.path)
        report_mistake(error)
        return float("nan")
    except KeyboardInterrupt:
        error_console.print(f"Interrupted. This continues where it stopped:\n  {escape(command)}")
        sys.exit(130)
    return float(record["metrics"]["val/acc"])


if __name__ == "__main__":
    main()
