"""How much of a fit's time may go into looking at it."""

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
        """What happens inside is the dashboard's; of a kind that can be left out, it is remembered."""
        start = time.perf_counter()
        yield
        seconds = time.perf_counter() - start
        self.spent += seconds
        if kind is not None:
            self.cost[kind] = seconds

    def allows(self, kind: str, first: float, part: float = 1.0) -> bool:
        """Return True if work that takes ``first`` seconds at first stays within a part of the share."""
        free = part * self.share * self.elapsed() - self.reserved()
        return self.spent + self.cost.get(kind, first) <= free
