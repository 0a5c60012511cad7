"""Loggers of a run, from their construction to its results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import DummyLogger

from amtml_pl.training.loggers.guard import LoggerGuard
from amtml_pl.training.loggers.run_facts import RunFacts
from amtml_pl.training.stages import RunRequest


def run_loggers(request: RunRequest, facts: RunFacts) -> list[Logger]:
    """Return the guarded loggers of a run, with their runs begun."""
    parts = request.settings.trainer.loggers.items()
    guards = [LoggerGuard(part.maker()(save_dir=request.folder.path), name) for name, part in parts]
    for logger in (guard.logger for guard in guards):
        if describe := getattr(logger, "describe", None):
            describe(facts)
        logger.log_hyperparams(dict(facts.config))
    return [DummyLogger() if guard.lost else guard.logger for guard in guards]  # monitors need a logger


@contextmanager
def finishing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Finish the runs of the loggers, so that the next job has its own."""
    status = 1
    try:
        yield
        status = 0
    finally:
        for logger in loggers:
            if finish := getattr(logger, "finish", None):
                finish(status)


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
