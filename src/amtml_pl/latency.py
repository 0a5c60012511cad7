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

from amtml_pl.features import TappedNetwork, evaluation_mode

REPETITIONS = 9
WARM_UP = 2
SECONDS_PER_REPETITION = 0.05


def latency(network: TappedNetwork, image_size: int, batch_sizes: Sequence[int] = (1, 128)) -> dict[str, Any]:
    """Milliseconds per image for batches of several sizes, on the CPU.

    Args:
        network: on the CPU; left as it was.
        image_size: height and width of the images, in pixels.
        batch_sizes: each is measured by itself.

    Returns:
        ``cpu`` and ``threads``; per batch size ``batch_<B>`` the median and the interquartile range of
        several repetitions, ``ms_per_image`` and ``spread``.
    """
    found = {f"batch_{size}": milliseconds(network, size, image_size) for size in batch_sizes}
    return {"cpu": cpu_name(), "threads": torch.get_num_threads(), "repetitions": REPETITIONS, **found}


def milliseconds(network: TappedNetwork, batch_size: int, image_size: int) -> dict[str, float]:
    """The same for one batch size."""
    with evaluation_mode(network), torch.inference_mode():
        return timed(network, batch_size, image_size)


def timed(forward: Callable[[Tensor], object], batch_size: int, image_size: int) -> dict[str, float]:
    """Milliseconds per image of anything that takes images, as `latency` gives them.

    A repetition is as many forwards as fill a twentieth of a second.
    """
    images = torch.rand(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    values = []
    forwards = 1
    for repetition in range(WARM_UP + REPETITIONS):
        start = time.perf_counter()
        for _ in range(forwards):
            forward(images)
        seconds = time.perf_counter() - start
        if repetition < WARM_UP:
            forwards = max(1, round(forwards * SECONDS_PER_REPETITION / seconds))
        else:
            values.append(1e3 * seconds / forwards / batch_size)
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {"ms_per_image": median, "spread": upper - lower}


def cpu_name() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
