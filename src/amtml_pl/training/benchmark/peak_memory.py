"""Peak private memory of a short run, measured in a separate process."""

from __future__ import annotations

import gc
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import nn

STATUS = Path("/proc/self/status")
INTERVAL = 0.002  # seconds between two samples


@contextmanager
def peak_private_memory() -> Iterator[list[float]]:
    """Yield a list of this process's peak private memory in MB, sampled by a thread."""
    peak: list[float] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(INTERVAL) and (now := private_megabytes()) is not None:
            peak[:] = [max([now, *peak])]

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def private_megabytes() -> float | None:
    """Return anonymous memory of this process in MB; None on systems other than Linux."""
    found = re.search(r"^RssAnon:\s+(\d+)", STATUS.read_text(), re.MULTILINE) if STATUS.exists() else None
    return None if found is None else int(found[1]) * 1024 / 1e6


def parameters_beside(module: nn.Module) -> int:
    """Count parameters of all modules in memory that are not part of ``module``."""
    gc.collect()  # modules without a reference are not resident
    own = {id(parameter) for parameter in module.parameters()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some lazy objects warn when their class is read
        modules = [thing for thing in gc.get_objects() if isinstance(thing, nn.Module)]
    others = {id(p): p.numel() for other in modules for p in other.parameters() if id(p) not in own}
    return sum(others.values())
