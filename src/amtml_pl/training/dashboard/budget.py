"""Limit on the share of a fit's time that the dashboard takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Budget:
    """Seconds that the dashboard has taken, against the seconds of the fit so far.

    Args:
        share: of the fit's time that may be spent, in [0, 1].
        elapsed: gives the seconds of the fit so far.
        reserved: gives the seconds that are kept back by now for the figures of the end.

    Attributes:
        spent: seconds in this session.
        cost: of each kind of work that can be left out, the seconds that it took last.
    """

    share: float
    elapsed: Callable[[], float]
    reserved: Callable[[], float] = lambda: 0.0
    spent: float = 0.0
    cost: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def spending(self, kind: str | None = None) -> Iterator[None]:
        """Count the time inside as the dashboard's, and remember it per optional kind."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.spent += seconds
        if kind is not None:
            self.cost[kind] = seconds

    def allows(self, kind: str, first: float, part: float = 1.0) -> bool:
        """Return whether optional work stays within a part of the share.

        ``first`` is the estimate of its seconds before it has been measured.
        """
        free = part * self.share * self.elapsed() - self.reserved()
        return self.spent + self.cost.get(kind, first) <= free
