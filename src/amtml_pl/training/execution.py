"""Choice of memory layout, compilation and fused optimiser for a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.utils._triton import has_triton

from amtml_pl.errors import UserError
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


def choose_execution(
    settings: Settings, macs: int, images: int | None, *, compiles: bool, recorded: Execution | None
) -> Execution:
    """Return the execution of a run; ``auto`` depends on counts, not on clocks.

    Args:
        settings: ``execution`` holds what is wanted: true, false or auto.
        macs: multiply-accumulates of the student for one image.
        images: training images of an epoch; None if unknown.
        compiles: True if the training loop can be compiled.
        recorded: the choice of the run that is resumed; it replaces every ``auto``.

    Raises:
        UserError: if ``execution.compile=true`` cannot be done here.
    """
    wanted, device = settings.method.execution, settings.trainer.device
    precision = str(settings.trainer.trainer.plain().get("precision", "32-true"))
    layout = wanted.channels_last
    if layout == "auto":
        suits = {"cpu": settings.method.suits_channels_last, "cuda": precision in HALF_PRECISION}
        automatic = suits.get(device, False)
        layout = automatic if recorded is None else recorded.channels_last
    fused = wanted.fused
    if fused == "auto":
        # Lightning cannot clip gradients that a fused optimiser may unscale; it refuses in both precisions.
        clipped = precision in HALF_PRECISION and settings.trainer.trainer.plain().get("gradient_clip_val")
        fused = device in MACS_PER_SECOND and not clipped if recorded is None else recorded.fused
    return Execution(
        channels_last=layout,
        compile=is_compiled(settings, macs, images, compiles=compiles, recorded=recorded),
        fused=fused,
    )


def is_compiled(
    settings: Settings, macs: int, images: int | None, *, compiles: bool, recorded: Execution | None
) -> bool:
    """Return True if the step is compiled: as wanted, as recorded, or because it pays."""
    wanted, device = settings.method.execution.compile, settings.trainer.device
    if wanted == "auto" and recorded is not None:
        wanted = recorded.compile and "auto"
        pays = bool(recorded.compile)
    else:
        work = 3.0 * macs * (images or 0) * settings.trainer.epochs  # a backward costs two forwards
        pays = work / MACS_PER_SECOND.get(device, float("inf")) * SHARE_SAVED > SECONDS_TO_COMPILE
    if wanted is False or (wanted == "auto" and not (pays and compiles)):
        return False
    obstacle = None if compiles else f"loop={settings.method.loop.target} takes a step in several parts"
    obstacle = obstacle or missing_compiler(device)
    if obstacle is None:
        return True
    if wanted is True:
        raise UserError(f"execution.compile=true is impossible: {obstacle}.", fix="execution.compile=auto")
    log.warning("The step is not compiled: %s.", obstacle)
    return False


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
