"""Weights & Biases: `conf/logger/wandb.yaml`."""

from __future__ import annotations

import netrc
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from pytorch_lightning.loggers import WandbLogger

from amtml_pl.errors import UserError, first_line
from amtml_pl.system.console import console
from amtml_pl.system.optional_packages import imported
from amtml_pl.training.loggers.run_facts import RunFacts

# Seconds: for a connection, the start of a run, and the upload at its end. wandb itself waits without end.
PROBE, START, UPLOAD = 5.0, 60.0, 60.0


class Wandb(WandbLogger):
    """Lightning's logger for Weights & Biases, with the facts of the run.

    It writes offline without an API key, or if the server does not answer.

    Args:
        save_dir: the run's folder.
        kwargs: of Lightning's ``WandbLogger`` and of ``wandb.init``, as ``project`` and ``entity``.
    """

    def __init__(self, save_dir: str | Path, **kwargs: Any) -> None:
        imported("wandb", extra="wandb")
        super().__init__(save_dir=save_dir, **kwargs)

    def describe(self, facts: RunFacts) -> None:
        """Name the run and start it; a resumed run continues under its id."""
        import wandb

        own = {"tags": facts.words(), "group": facts.tags.get("experiment")}
        given = {name: value for name, value in self._wandb_init.items() if value is not None}
        self._wandb_init = {**own, "id": facts.name, "name": facts.name, **given}
        if not facts.resumed:  # the server then replaces an earlier run of this id, as force=true does here
            self._wandb_init["resume"] = None
        waits = {"init_timeout": START, "finish_timeout": UPLOAD, "finish_timeout_raises": True}
        self._wandb_init["settings"] = {**waits, **(given.get("settings") or {})}
        decided = "WANDB_MODE" in os.environ or "mode" in given or self._offline
        if not decided and (reason := reason_to_stay_offline()):
            self.go_offline(reason)
        try:
            _ = self.experiment
        except wandb.errors.UsageError as error:
            raise UserError(
                f"logger.wandb cannot begin a run: {first_line(error).rstrip('.')}.",
                fix="correct the values of logger.wandb, or run wandb login",
            ) from error
        except (wandb.errors.CommError, TimeoutError) as error:
            self.go_offline(first_line(error).rstrip("."))
            _ = self.experiment
        self._id, self._name = self._wandb_init["id"], self._wandb_init["name"]

    def go_offline(self, reason: str) -> None:
        """Write into the run's folder, and say how to upload it."""
        self._wandb_init["mode"] = "offline"
        console.print(
            f"logger.wandb writes offline: {reason:.200}. To upload the run later: wandb sync "
            f"{self.save_dir}/wandb/offline-run-*",
            markup=False,
        )

    def finish(self, status: int) -> None:
        """End the run, so that another can begin in this process (wandb/wandb#1314)."""
        if (run := self._experiment) is None:
            return
        self._experiment = None
        try:
            run.finish(exit_code=status)
        except TimeoutError:
            import wandb

            wandb.teardown(status)  # which writes what it has not uploaded
            raise


def reason_to_stay_offline() -> str | None:
    """Return why the service cannot be used; None if it can."""
    import wandb

    settings = wandb.setup().settings
    server = urlsplit(settings.base_url)
    if not (settings.api_key or settings.identity_token_file or has_netrc_entry(server.hostname or "")):
        return "the API key is missing (wandb login stores one)"
    if getproxies():  # a direct connection would say nothing
        return None
    port = server.port or (80 if server.scheme == "http" else 443)
    try:
        socket.create_connection((server.hostname or "", port), timeout=PROBE).close()
    except OSError as error:
        return f"{settings.base_url} cannot be reached ({error.strerror or error})"
    return None


def has_netrc_entry(host: str) -> bool:
    """Return True if the user's netrc file has a password, from ``wandb login``."""
    named = os.environ.get("NETRC")
    files = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        with suppress(OSError, netrc.NetrcParseError):
            if netrc.netrc(file).authenticators(host):
                return True
    return False
