"""Provide a sweeper that searches with Optuna; Hydra looks for its plugins here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Searches for the overrides with the best validation accuracy."""

    def __init__(self, params: Mapping[str, Any], max_batch_size: int, **settings: int) -> None:
        self.params, self.settings = params, {"at_once": max_batch_size, **settings}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Create the launcher that runs the trials."""
        self.config, self.config_loader = config, hydra_context.config_loader
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search until enough trials have completed."""
        # Not above: Hydra imports this file in every command.
        from amtml_pl.config.reporting import report_mistake
        from amtml_pl.errors import UserError
        from amtml_pl.training.sweep.optuna_search import Search, refuse_last_epochs

        overrides = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parsed = OverridesParser.create(config_loader=self.config_loader).parse_overrides(overrides)
        try:
            refuse_last_epochs(self.config)
            Search(parsed, self.launcher.launch, **self.settings).run()
        except UserError as error:  # Hydra would print a traceback
            report_mistake(error)
