"""Keep a fit from being lost by a logger or a callback."""

from __future__ import annotations

import functools
import logging
import socket
from collections.abc import Callable
from typing import Any

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from amtml_pl.distill.checked_calls import errors_named
from amtml_pl.errors import UserError, first_line, raised_by
from amtml_pl.system.limits import causes
from amtml_pl.system.ranks import is_rank_zero

log = logging.getLogger(__name__)

# What the run and Lightning call; `describe` and `finish` are those of the loggers of this project.
METHODS = (
    "describe", "log_hyperparams", "log_metrics", "log_graph", "save", "after_save_checkpoint", "finalize",
    "finish",
)  # fmt: skip
# Packages whose exceptions report a server that does not answer: of HTTP, and wandb's process for it.
CLIENTS = ("wandb", "requests", "urllib3", "httpx", "httpx2", "httpcore", "httpcore2")


class LoggerGuard:
    """Guard around the methods of one logger, which stays an object of its own class.

    A server that does not answer costs one warning, and the logger is silent from then on. Any other error
    ends the fit, which can be resumed. Only rank 0 calls the methods.

    Args:
        logger: its methods are replaced.
        name: of its entry in ``logger``, for messages.

    Attributes:
        lost: True after a lost connection.
    """

    def __init__(self, logger: Logger, name: str) -> None:
        self.logger, self.name, self.lost = logger, name, False
        for method in METHODS:
            if hasattr(logger, method):
                setattr(logger, method, self.guarded(getattr(logger, method)))

    def guarded(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method that does nothing after a lost connection."""

        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            if self.lost or not is_rank_zero():
                return None
            try:
                return method(*arguments, **named)
            except UserError:
                raise
            except Exception as error:
                if not is_lost_connection(error):
                    raise raised_by(f"logger.{self.name}", method.__name__, error) from error
                self.lost = True
                log.warning(
                    "logger.%s has lost its server (%s). The run continues without this logger; metrics.csv "
                    "has all numbers.",
                    self.name,
                    first_line(error)[:200],
                )
            return None

        return call


def is_lost_connection(error: BaseException) -> bool:
    """Return True if an exception reports a server that does not answer."""
    return any(
        isinstance(cause, ConnectionError | TimeoutError | socket.gaierror)
        or type(cause).__module__.partition(".")[0] in CLIENTS
        for cause in causes(error)
    )


def guard_callback(callback: Callback, name: str) -> None:
    """Name a callback of the configuration in the error that one of its hooks raises."""
    for hook in (hook for hook in vars(Callback) if hook[:3] == "on_" or hook in ("setup", "teardown")):
        if getattr(type(callback), hook) is not getattr(Callback, hook):
            setattr(callback, hook, guarded(f"callbacks.{name}", getattr(callback, hook)))


def guarded(place: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method whose exceptions become UserErrors that name its place."""

    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        with errors_named(place, method.__name__):
            return method(*arguments, **named)

    return call
