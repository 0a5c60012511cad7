"""``benchmark.json``: a benchmark's measurements and their conditions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from amtml_pl.runs.record import GitState
from amtml_pl.system.records import Command, Record


class Statistic(Record):
    """Median and interquartile range of the repetitions; None if it cannot be measured here."""

    median: float | None = None
    spread: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistic:
        """Return the statistic of some repetitions."""
        if not values:
            return cls()
        lower, median, upper = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
        return cls(median=median, spread=upper - lower)


class BreakEven(Record):
    """Number of epochs after which building the cache has paid for itself."""

    seconds_saved_per_epoch: float
    seconds_to_build_a_view: float
    views: int
    epochs: int
    paid_after_epochs_of_the_first_run: int | None
    seconds_saved_in_the_first_run: float
    seconds_saved_in_every_later_run: float


class Conditions(Record):
    """Conditions of a benchmark: images, teachers, repetitions and machine.

    The build includes loading the teachers. The input lasts from the end of a step to the start of the next,
    which is an upper bound. Memory is the private memory of a process that trains after the build. The
    execution is that of a whole run of the experiment.
    """

    images: str
    untrained_teachers: tuple[str, ...]
    classes: int
    batch_size: int
    repetitions: int
    steps_per_repetition: int
    images_in_the_cache: int | None
    threads: int
    processor: str
    execution: str
    gpu: str | None


class BenchmarkRecord(Record):
    """Content of ``benchmark.json``; ``docs/cache.md`` has the meaning of each figure."""

    experiment: str | None
    command: Command
    figures: dict[str, Statistic]
    break_even: BreakEven
    conditions: Conditions
    git: GitState | None
    versions: dict[str, str]
