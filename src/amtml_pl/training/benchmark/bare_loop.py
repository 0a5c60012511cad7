"""Bare training loops: how fast the student can learn from labels on this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from amtml_pl.errors import first_line
from amtml_pl.runs.record import Execution
from amtml_pl.training.assemble import student_network
from amtml_pl.training.execution import HALF_PRECISION, fused_optimizer, missing_compiler
from amtml_pl.training.settings import Settings

log = logging.getLogger(__name__)

LAYOUTS = {"bare_eager": (False, False), "bare_channels_last": (True, False), "bare_compiled": (True, True)}


class BareLoop:
    """Own copy of a run's student, trained from labels on random images in memory.

    The images are one batch. Network, batch size, optimiser and precision are those of the run. There is
    neither Lightning, logging nor input, and the images have the network's size and are not normalised.

    Args:
        settings: of the run.
        execution: memory layout, compilation and optimiser of this loop.
    """

    def __init__(self, settings: Settings, execution: Execution) -> None:
        method, dataset = settings.method, settings.dataset
        device = self.device = torch.device(settings.trainer.device)
        size = method.input_size or dataset.image_size
        shape = (settings.data.batch_size, 3, size, size)
        with torch.random.fork_rng():  # the runs that are measured in turn keep their random numbers
            self.network = student_network(settings, [], execution).network.train().to(device)
            self.images = torch.rand(shape).to(device)
            self.labels = torch.randint(dataset.num_classes, shape[:1]).to(device)
        if execution.channels_last:
            self.images = self.images.to(memory_format=torch.channels_last)
        make = fused_optimizer(method.optimizer.build(), fused=execution.fused)
        self.optimizer: torch.optim.Optimizer = make(list(self.network.parameters()))
        self.precision = str(settings.trainer.trainer.plain().get("precision", "32-true"))
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "16-mixed")
        self.loss = torch.compile(self.loss_of, dynamic=False) if execution.compile else self.loss_of

    def loss_of(self, images: Float[Tensor, "B 3 H W"], labels: Tensor) -> Float[Tensor, ""]:
        """Return the cross-entropy of a batch."""
        return F.cross_entropy(self.network(images), labels)

    def step(self) -> None:
        """Train on the batch."""
        half = torch.float16 if self.precision == "16-mixed" else torch.bfloat16
        self.optimizer.zero_grad()
        with any_algorithm():
            with torch.autocast(self.device.type, half, enabled=self.precision in HALF_PRECISION):
                loss = self.loss(self.images, self.labels)
            torch.autograd.backward(self.scaler.scale(loss))
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def seconds(self, steps: int) -> list[float]:
        """Return the times of some steps, after an untimed one."""
        self.step()
        times = [time_when_done(self.device)]
        for _ in range(steps):
            self.step()
            times.append(time_when_done(self.device))
        return [after - before for before, after in pairwise(times)]


def bare_loops(settings: Settings, *, fused: bool) -> dict[str, BareLoop]:
    """Return the loops of `LAYOUTS` that can run here, ready to be timed.

    Args:
        settings: of the run.
        fused: True where the run's optimiser is fused.
    """
    loops = {}
    for name, (channels_last, compiled) in LAYOUTS.items():
        if compiled and missing_compiler(settings.trainer.device):
            continue
        own = Execution(channels_last=channels_last, compile=compiled, fused=fused)
        loop = BareLoop(settings, own)
        try:
            loop.step()
        except Exception as error:
            if not compiled:
                raise
            log.warning("The loop for comparison cannot be compiled (%s).", first_line(error))
            continue
        loops[name] = loop
    return loops


@contextmanager
def any_algorithm() -> Iterator[None]:
    """Let torch choose the fastest algorithms inside, deterministic or not."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)


def time_when_done(device: torch.device) -> float:
    """Return the clock's time once the accelerator has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
