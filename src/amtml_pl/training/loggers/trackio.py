"""Trackio: `conf/logger/trackio.yaml`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from amtml_pl.system.optional_packages import imported
from amtml_pl.training.loggers.run_facts import RunFacts


class Trackio(Logger):
    """Logger for Trackio, for which Lightning has none.

    Args:
        save_dir: the run's folder.
        project: its name in ``trackio show``.
        space_id: ``user/name`` of a Hugging Face Space; None writes a local database alone.
        server_url: of a server of one's own; None for none.
    """

    def __init__(
        self,
        save_dir: str | Path,
        project: str = "amtml_pl",
        space_id: str | None = None,
        server_url: str | None = None,
    ) -> None:
        imported("trackio", extra="trackio")
        super().__init__()
        self.folder, self.project = str(save_dir), project
        self.server = {"space_id": space_id, "server_url": server_url}
        self.run_name, self.run = "", None

    def describe(self, facts: RunFacts) -> None:
        """Begin a run; a resumed one continues under its name."""
        import trackio

        self.run_name = facts.name
        server = {name: value for name, value in self.server.items() if value is not None}
        self.run = trackio.init(
            project=self.project,
            name=facts.name,
            group=facts.tags.get("experiment"),
            config={**facts.config, "tags": facts.words()},
            resume="allow" if facts.resumed else "never",
            embed=False,
            **server,
        )

    @property
    def name(self) -> str:
        """Return the project."""
        return self.project

    @property
    def version(self) -> str:
        """Return the name of the run."""
        return self.run_name

    @property
    def save_dir(self) -> str:
        """Return the folder of the run."""
        return self.folder

    @property
    def experiment(self) -> Any:
        """Return Trackio's run."""
        return self.run

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers at a step."""
        if self.run is not None:
            self.run.log(dict(metrics), step=step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Ignore the configuration, which the run began with."""

    def finish(self, status: int) -> None:
        """End the run."""
        if self.run is not None:
            self.run.finish()
            self.run = None
