"""``benchmark.json``: a benchmark's measurements and their conditions."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from amtml_pl.runs.record import GitState
from amtml_pl.system.records import Command, Record


class Figure(Record):
    """Measured quantity.

    Attributes:
        median: of the repetitions; None where it cannot be measured on this machine.
        spread: interquartile range of the repetitions.
    """

    median: float | None = None
    spread: float | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        """Return the figure of some repetitions."""
        if len(values) < 2:
            return cls(median=values[0], spread=0.0) if values else cls()
        lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median=statistics.median(values), spread=upper - lower)


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
    """Conditions of a benchmark: what was measured, how often, on which machine.

    The build and the bare loop both load the teachers. The input lasts from the end of a step to the start of
    the next, which is an upper bound. Memory is the private memory of a process that trains after the build.
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
    gpu: str | None


class BenchmarkRecord(Record):
    """Content of ``benchmark.json``; ``docs/cache.md`` has the meaning of each figure."""

    experiment: str | None
    command: Command
    figures: dict[str, Figure]
    break_even: BreakEven
    conditions: Conditions
    git: GitState | None
    versions: dict[str, str]
