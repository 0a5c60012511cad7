"""Loggers of a run, from their construction to its results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyLogger

from amtml_pl.errors import UserError
from amtml_pl.training.loggers.guard import LoggerGuard
from amtml_pl.training.loggers.run_facts import RunFacts
from amtml_pl.training.stages import RunRequest


@contextmanager
def run_loggers(request: RunRequest, facts: RunFacts) -> Iterator[list[Logger]]:
    """Yield the guarded loggers with their runs begun, and finish these in the end."""
    loggers: list[Logger] = []
    with ExitStack() as runs:
        for name, part in request.settings.trainer.loggers.items():
            guard = LoggerGuard(part.maker()(save_dir=request.folder.path), name)
            if finish := getattr(guard.logger, "finish", None):
                runs.push(finishing(finish))
            if describe := getattr(guard.logger, "describe", None):
                describe(facts)
            guard.logger.log_hyperparams(dict(facts.config))
            loggers.append(DummyLogger() if guard.lost else guard.logger)
        yield loggers or [DummyLogger()]  # monitors need a logger


def finishing(finish: Callable[[int], None]) -> Callable[..., None]:
    """Return an exit that finishes a run; an error of the fit comes first."""

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        try:
            finish(0 if kind is None else 1)
        except UserError:
            if kind is None:
                raise

    return leave


def conclude(
    loggers: Sequence[Logger], metrics: Mapping[str, float], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Log the results of a run.

    Args:
        loggers: without TensorBoard's, whose dashboard has them.
        metrics: by flat name; that of a curve is the value of the selected epoch, logged as ``best/val/acc``.
        rows: of the epochs, whose columns are the curves; empty outside rank 0.
    """
    last = rows[-1] if rows else {}
    results = {f"best/{name}" if name in last else name: value for name, value in metrics.items()}
    for logger in loggers:
        logger.log_metrics(results, step=last.get("step"))
        logger.save()
