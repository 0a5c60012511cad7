"""Measure a network's time per image on this machine's CPU."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from amtml_pl.models.taps import TappedNetwork, evaluation_mode
from amtml_pl.system.records import Positive, Record

Images: TypeAlias = Float[Tensor, "B 3 H W"]

REPETITIONS = 9
WARM_UP = 2
SECONDS_PER_REPETITION = 0.05
# A network that takes seconds for a batch is repeated less often.
BUDGET_SECONDS = 20.0
LEAST_REPETITIONS = 3


class Speed(Record):
    """Milliseconds per image: median and interquartile range of some repetitions."""

    ms_per_image: float
    spread: float
    repetitions: Positive


class Latency(Record):
    """The time per image of a network, in batches of 1 and of 128."""

    cpu: str
    threads: Positive
    batch_1: Speed
    batch_128: Speed


def latency(network: TappedNetwork, image_size: int) -> Latency:
    """Measure milliseconds per image on the CPU.

    Args:
        network: on the CPU; left as it was.
        image_size: height and width of the images, in pixels.
    """
    with evaluation_mode(network), torch.inference_mode():
        one, many = (timed(network, size, image_size) for size in (1, 128))
    return Latency(cpu=cpu_name(), threads=torch.get_num_threads(), batch_1=one, batch_128=many)


def timed(forward: Callable[[Images], object], batch_size: int, image_size: int) -> Speed:
    """Measure milliseconds per image of any function of images.

    A repetition is as many forward passes as fill a twentieth of a second. Nine are timed after two for
    warming up; once 20 s are spent, only three after one.
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
    return Speed(ms_per_image=median, spread=upper - lower, repetitions=len(values))


def seconds_of(forward: Callable[[Images], object], images: Images, forwards: int) -> float:
    """Return the seconds of some forward passes of the same images."""
    start = time.perf_counter()
    for _ in range(forwards):
        forward(images)
    return time.perf_counter() - start


def cpu_name() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
