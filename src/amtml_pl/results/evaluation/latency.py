"""Measure a network's time per image on this machine's CPU."""

from __future__ import annotations

import platform
import statistics
import timeit
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.models.state import evaluation_mode
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.runs.evaluation import Latency, Speed

Images: TypeAlias = Float[Tensor, "B 3 H W"]

SECONDS_PER_REPETITION = 0.05
REPETITIONS = 9
# A network that takes long for a batch is timed less often.
SLOW_SECONDS, SLOW_REPETITIONS = 2.0, 3


def latency(network: TappedNetwork, image_size: int) -> Latency:
    """Measure a network on the CPU; ``image_size`` is the side of its images in pixels."""
    with evaluation_mode(network), torch.inference_mode():
        one, many = (time_per_image(network, size, image_size) for size in (1, 128))
    return Latency(cpu=cpu_name(), threads=torch.get_num_threads(), batch_1=one, batch_128=many)


def time_per_image(forward: Callable[[Images], object], batch_size: int, image_size: int) -> Speed:
    """Measure milliseconds per image of any function of images, after a call to warm up."""
    images = torch.rand(batch_size, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    timer = timeit.Timer(lambda: forward(images))
    seconds = timer.repeat(2, number=1)[1]  # the first call warms up
    passes = max(1, round(SECONDS_PER_REPETITION / seconds))
    repetitions = REPETITIONS if seconds < SLOW_SECONDS else SLOW_REPETITIONS
    values = [1e3 * total / passes / batch_size for total in timer.repeat(repetitions, passes)]
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Speed(ms_per_image=median, spread=upper - lower, repetitions=repetitions)


def cpu_name() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
