"""Peak private memory of a short run, measured in a process of its own."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

STATUS = Path("/proc/self/status")
INTERVAL = 0.002  # seconds between two looks


@dataclass(frozen=True)
class PeakMemory:
    """Memory use of a run.

    Attributes:
        megabytes: highest private memory, pages mapped from files not counted; None on systems
            other than Linux.
        teacher_parameters: elements of all modules in memory that do not belong to the trained one.
    """

    megabytes: float | None
    teacher_parameters: int


class Sampler:
    """Thread that samples the private memory of this process."""

    def __init__(self) -> None:
        self.highest: float | None = None
        self.stop = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample until the block ends."""
        thread = threading.Thread(target=self.look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join()

    def look(self) -> None:
        """Take a sample and keep the highest value."""
        while not self.stop.wait(INTERVAL):
            now = private_megabytes()
            if now is not None:
                self.highest = max(now, self.highest or 0.0)


def private_megabytes() -> float | None:
    """Return anonymous memory of this process in MB; None on systems other than Linux."""
    try:
        lines = STATUS.read_text().splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return int(kilobytes[0]) * 1024 / 1e6 if kilobytes else None


def parameters_beside(module: nn.Module) -> int:
    """Count parameters of all modules in memory that are not part of ``module``."""
    gc.collect()  # modules without a reference are not resident
    own = {id(parameter) for parameter in module.parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # asking some lazy objects for their class warns
        modules = [thing for thing in gc.get_objects() if isinstance(thing, nn.Module)]
    others = {id(p): p.numel() for other in modules for p in other.parameters() if id(p) not in own}
    return sum(others.values())
