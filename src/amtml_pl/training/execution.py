"""Choice of memory layout, compilation and fused optimiser for a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils._triton import has_triton

from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork, cost
from amtml_pl.runs.record import Execution
from amtml_pl.training.settings import Settings

log = logging.getLogger(__name__)

EAGER = Execution(channels_last=False, compile=False, fused=False)
# Multiply-accumulates of training that take one second; measured for "cpu", assumed for "cuda"
# (docs/measurements/speed.md).
MACS_PER_SECOND = {"cpu": 60e9, "cuda": 2e12}
SHARE_SAVED = 0.15  # of a step's time, by compilation
SECONDS_TO_COMPILE = 60.0
HALF_PRECISION = ("16-mixed", "bf16-mixed")


def choose_execution(settings: Settings, images: int, recorded: Execution | None = None) -> Execution:
    """Return the execution of a run; ``auto`` depends on counts, not on clocks.

    Args:
        settings: ``execution`` holds what is wanted: true, false or auto.
        images: training images of an epoch.
        recorded: the choice of the run that is resumed; it replaces every ``auto``.

    Raises:
        UserError: if ``execution.compile=true`` cannot be done here.
    """
    wanted, device = settings.method.execution, settings.trainer.device
    trainer = settings.trainer.trainer.plain()
    precision = str(trainer.get("precision", "32-true"))
    layout, fused = wanted.channels_last, wanted.fused
    if layout == "auto":
        suits = {"cpu": settings.method.suits_channels_last, "cuda": precision in HALF_PRECISION}
        layout = suits.get(device, False) if recorded is None else recorded.channels_last
    if fused == "auto":
        # Lightning cannot clip gradients that a fused optimiser unscales.
        clipped = precision in HALF_PRECISION and bool(trainer.get("gradient_clip_val"))
        fused = device in MACS_PER_SECOND and not clipped if recorded is None else recorded.fused
    return Execution(channels_last=layout, compile=is_compiled(settings, images, recorded), fused=fused)


def is_compiled(settings: Settings, images: int, recorded: Execution | None) -> bool:
    """Return True if the step is compiled: as wanted, as recorded, or because it pays."""
    wanted, device = settings.method.execution.compile, settings.trainer.device
    if wanted is False:
        return False
    compiles = bool(settings.method.loop.maker().func.compiles)
    if wanted == "auto":
        pays = compilation_pays(settings, images) if recorded is None else recorded.compile
        if not pays or not compiles:
            return False
    several = f"loop={settings.method.loop.target} takes a step in several parts"
    obstacle = missing_compiler(device) if compiles else several
    if obstacle is None:
        return True
    if wanted is True:
        raise UserError(f"execution.compile=true is not possible: {obstacle}.", fix="execution.compile=auto")
    log.warning("The step is not compiled: %s.", obstacle)
    return False


def compilation_pays(settings: Settings, images: int) -> bool:
    """Return True if compilation saves more time over the whole run than it takes."""
    dataset = settings.dataset
    student = TappedNetwork(settings.method.student.build(), mean=dataset.mean, std=dataset.std)
    macs = 3 * cost(student, dataset.image_size).macs  # a backward costs two forwards
    rate = MACS_PER_SECOND.get(settings.trainer.device, float("inf"))
    return macs * images * settings.trainer.epochs / rate * SHARE_SAVED > SECONDS_TO_COMPILE


def missing_compiler(device: str) -> str | None:
    """Return a clause on the compiler that a device lacks; None if it has one."""
    if device == "cuda":
        return None if has_triton() else "the package triton is not installed"
    from torch._inductor.cpp_builder import get_cpp_compiler  # takes a second
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "no C++ compiler is found (set CXX, or install g++)"
    return None


def fused_optimizer(make: Callable[..., Any], *, fused: bool) -> Callable[..., Any]:
    """Return the optimiser's constructor with ``fused=True``, if its YAML has ``fused: null``."""
    if not fused or not isinstance(make, partial) or make.keywords.get("fused", ...) is not None:
        return make
    return partial(make, fused=True)
