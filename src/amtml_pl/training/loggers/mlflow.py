"""MLflow: `conf/logger/mlflow.yaml`."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pytorch_lightning.loggers import MLFlowLogger

from amtml_pl.errors import UserError
from amtml_pl.system.optional_packages import imported
from amtml_pl.training.loggers.run_facts import RunFacts
from amtml_pl.training.summary import override

SQLITE = "sqlite:///"
ADDRESS = "MLFLOW_TRACKING_URI"
# A server that stops would else hold the fit for minutes. Values that the user has set stay.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MLFlow(MLFlowLogger):
    """Lightning's logger for MLflow, with the facts of the run.

    Args:
        save_dir: the run's folder.
        tracking_uri: of a server or a database; a folder only if MLflow allows it.
        experiment_name: None takes the name of the experiment, or ``amtml_pl``.
        prefix: of every metric.
        log_model: True to upload the best checkpoint.
        artifact_location: of a new MLflow experiment; None lets MLflow choose.
        synchronous: False to log in the background; None lets MLflow choose.

    Raises:
        UserError: if mlflow is not installed, or does not allow a folder.
    """

    def __init__(
        self,
        save_dir: str | Path,
        tracking_uri: str,
        experiment_name: str | None = None,
        prefix: str = "",
        log_model: bool | Literal["all"] = False,
        artifact_location: str | None = None,
        synchronous: bool | None = None,
    ) -> None:
        imported("mlflow", extra="mlflow")
        refuse_folder(tracking_uri)
        self.folder, self.continued = str(save_dir), False
        # The constructor of Lightning opens the store, which is too early here.
        self.given: dict[str, Any] = {
            "tracking_uri": tracking_uri, "experiment_name": experiment_name, "prefix": prefix,
            "log_model": log_model, "artifact_location": artifact_location, "synchronous": synchronous,
        }  # fmt: skip

    def describe(self, facts: RunFacts) -> None:
        """Open the store, and begin a run; a resumed one continues."""
        from mlflow.tracking import MlflowClient

        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        uri = self.given["tracking_uri"]
        if uri.startswith(SQLITE):
            Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        name = self.given["experiment_name"] or facts.tags.get("experiment", "amtml_pl")
        earlier = earlier_run(MlflowClient(uri), name, facts.name) if facts.resumed else None
        self.continued = earlier is not None
        about = {"experiment_name": name, "run_name": facts.name, "tags": dict(facts.tags)}
        with address_restored():
            super().__init__(**{**self.given, **about}, run_id=earlier)
            _ = self.experiment

    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Log the configuration of a new run; MLflow refuses other values of an existing one."""
        if not self.continued:
            super().log_hyperparams(params)

    @property
    def save_dir(self) -> str:
        """Return the folder of the run."""
        return self.folder


@contextmanager
def address_restored() -> Iterator[None]:
    """Restore MLFLOW_TRACKING_URI, which MLflow sets for the whole process."""
    earlier = os.environ.get(ADDRESS)
    try:
        yield
    finally:
        os.environ.pop(ADDRESS, None)
        if earlier is not None:
            os.environ[ADDRESS] = earlier


def refuse_folder(uri: str) -> None:
    """Raise a UserError for a folder before the run begins, unless MLflow allows it."""
    from mlflow import environment_variables
    from mlflow.utils import uri as uris

    is_local_uri: Callable[[str], bool] = uris.is_local_uri
    allowed = getattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)  # an older MLflow has none
    if allowed is None or not is_local_uri(uri) or allowed.get():
        return
    folder = urlsplit(uri).path or "."
    raise UserError(
        f"logger.mlflow.tracking_uri={uri} is a folder, which MLflow accepts only with {allowed.name}=true "
        "(expected the address of a server or a database).",
        fix=override("logger.mlflow.tracking_uri", f"{SQLITE}{folder.rstrip('/')}/mlflow.db"),
    )


def earlier_run(client: Any, experiment: str, name: str) -> str | None:
    """Return the id of the last run with a name; None without one."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return None
    named = f"tags.`mlflow.runName` = '{name}'"
    runs = client.search_runs([found.experiment_id], named, order_by=["start_time DESC"], max_results=1)
    return runs[0].info.run_id if runs else None
