"""How long a network takes for an image on this machine's CPU."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amtml_pl.models.taps import TappedNetwork, evaluation_mode

REPETITIONS = 9
WARM_UP = 2
SECONDS_PER_REPETITION = 0.05
# A network that takes seconds for a batch is repeated less often.
BUDGET_SECONDS = 20.0
LEAST_REPETITIONS = 3


def latency(network: TappedNetwork, image_size: int, batch_sizes: Sequence[int] = (1, 128)) -> dict[str, Any]:
    """Milliseconds per image for batches of several sizes, on the CPU.

    Args:
        network: on the CPU; left as it was.
        image_size: height and width of the images, in pixels.
        batch_sizes: each is measured by itself.

    Returns:
        ``cpu`` and ``threads``; per batch size ``batch_<B>`` the median and the interquartile range of
        several repetitions, ``ms_per_image`` and ``spread``, and how many ``repetitions`` these were.
    """
    found = {f"batch_{size}": milliseconds(network, size, image_size) for size in batch_sizes}
    return {"cpu": cpu_name(), "threads": torch.get_num_threads(), **found}


def milliseconds(network: TappedNetwork, batch_size: int, image_size: int) -> dict[str, float]:
    """The same for one batch size."""
    with evaluation_mode(network), torch.inference_mode():
        return timed(network, batch_size, image_size)


def timed(forward: Callable[[Tensor], object], batch_size: int, image_size: int) -> dict[str, float]:
    """Milliseconds per image of anything that takes images, as `latency` gives them.

    A repetition is as many forwards as fill a twentieth of a second. There are nine after two that warm up;
    once 20 s are spent, no more than one that warms up and three.
    """
    images = torch.rand(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    begin = time.perf_counter()
    forwards = 1
    for _ in range(WARM_UP):
        seconds = seconds_of(forward, images, forwards)
        forwards = max(1, round(forwards * SECONDS_PER_REPETITION / seconds))
        if time.perf_counter() - begin > BUDGET_SECONDS:
            break
    values: list[float] = []
    while len(values) < REPETITIONS:
        if len(values) >= LEAST_REPETITIONS and time.perf_counter() - begin > BUDGET_SECONDS:
            break
        values.append(1e3 * seconds_of(forward, images, forwards) / forwards / batch_size)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"ms_per_image": median, "spread": upper - lower, "repetitions": len(values)}


def seconds_of(forward: Callable[[Tensor], object], images: Tensor, forwards: int) -> float:
    """What some forwards of the same images take together."""
    start = time.perf_counter()
    for _ in range(forwards):
        forward(images)
    return time.perf_counter() - start


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
