"""Choice of memory layout, compilation and fused optimiser for a run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any, Literal, TypeAlias

from torch.utils._triton import has_triton

from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError, first_line
from amtml_pl.models.layout import set_layout, unsafe_convolutions
from amtml_pl.models.taps import TappedNetwork, blank_forward, cost
from amtml_pl.runs.record import Execution
from amtml_pl.training.settings import Settings

log = logging.getLogger(__name__)

EAGER = Execution(channels_last=False, compile=False, fused=False)
# Multiply-accumulates of training that take one second; measured for "cpu", assumed for "cuda"
# (docs/execution.md).
MACS_PER_SECOND = {"cpu": 60e9, "cuda": 2e12}
SHARE_SAVED = 0.15  # of a step's time, by compilation
SECONDS_TO_COMPILE = 60.0
HALF_PRECISION = ("16-mixed", "bf16-mixed")
Wanted: TypeAlias = bool | Literal["auto"]


def choose_execution(
    settings: Settings, images: int, recorded: Execution | None = None, *, report: bool = True
) -> Execution:
    """Return the execution of a run; ``auto`` depends on counts, not on clocks.

    Args:
        settings: ``execution`` holds what is wanted: true, false or auto.
        images: training images of an epoch.
        recorded: the choice of the run that is resumed; it replaces every ``auto``.
        report: print why an ``auto`` is not what it would have been.

    Raises:
        UserError: if a wanted true cannot be done here.
    """
    wanted, dataset = settings.method.execution, settings.dataset
    student = settings.student()
    own_fused = settings.method.optimizer.plain().get("fused")

    def decided(
        key: str, want: Wanted, automatic: Callable[[], bool], obstacle_of: Callable[[], str | None]
    ) -> bool:
        auto = want == "auto"
        chosen = bool(want) if not auto else getattr(recorded, key) if recorded else automatic()
        obstacle = obstacle_of() if chosen else None
        if obstacle is None:
            return chosen
        if not auto:
            own = key == "fused" and own_fused is not None
            name, otherwise = ("optimizer.fused", "null") if own else (f"execution.{key}", "auto")
            raise UserError(
                f"{name} is not possible (got true, expected false or {otherwise}): {obstacle}.",
                fix=f"{name}={otherwise}",
            )
        if report and key != "fused":
            log.warning("execution.%s=auto is false here: %s.", key, obstacle)
        return False

    return Execution(
        channels_last=decided(
            "channels_last",
            wanted.channels_last,
            lambda: suits_channels_last(settings),
            lambda: layout_obstacle(student, dataset.image_size),
        ),
        compile=decided(
            "compile",
            wanted.compile,
            lambda: compilation_pays(settings, student, images),
            lambda: compile_obstacle(settings, student),
        ),
        fused=decided(
            "fused",
            wanted.fused if own_fused is None else own_fused,
            lambda: settings.trainer.device in MACS_PER_SECOND,
            lambda: fused_obstacle(settings),
        ),
    )


def suits_channels_last(settings: Settings) -> bool:
    """Return True if the channels-last layout is faster for the student."""
    suits = {"cpu": settings.method.suits_channels_last, "cuda": precision(settings) in HALF_PRECISION}
    return suits.get(settings.trainer.device, False)


def layout_obstacle(student: TappedNetwork, image_size: int) -> str | None:
    """Return why channels-last is impossible, as a clause; None if possible."""
    if unsafe := unsafe_convolutions(student.network):
        return f"torch's backward pass of {unsafe[0]} can corrupt memory (docs/execution.md)"
    changed = deepcopy(student)
    set_layout(changed.network, channels_last=True, compiled=False)
    try:
        blank_forward(changed, image_size)
    except UserError as error:
        return first_line(error).rstrip(".")
    return None


def compilation_pays(settings: Settings, student: TappedNetwork, images: int) -> bool:
    """Return True if compilation saves more time over the whole run than it takes."""
    if images < settings.data.batch_size:  # only full batches run compiled
        return False
    macs = 3 * cost(student, settings.dataset.image_size).macs  # a backward costs two forwards
    rate = MACS_PER_SECOND.get(settings.trainer.device, float("inf"))
    return macs * images * settings.trainer.epochs / rate * SHARE_SAVED > SECONDS_TO_COMPILE


def compile_obstacle(settings: Settings, student: TappedNetwork) -> str | None:
    """Return why the step cannot be compiled, as a clause; None if it can."""
    if not compiles(settings.method.loop.maker().func):
        return f"loop={settings.method.loop.target} takes a training step of its own"
    if unsafe := unsafe_convolutions(student.network):
        return f"torch's backward pass of {unsafe[0]} can corrupt memory (docs/execution.md)"
    return missing_compiler(settings.trainer.device)


def compiles(loop: object) -> bool:
    """Return True if a loop takes its step as `DistillModule` does."""
    return (
        isinstance(loop, type)
        and issubclass(loop, DistillModule)
        and loop.training_step is DistillModule.training_step
        and loop.distill_step is DistillModule.distill_step
    )


def fused_obstacle(settings: Settings) -> str | None:
    """Return why the optimiser cannot be fused, as a clause; None if it can."""
    if "fused" not in settings.method.optimizer.plain():
        return "the YAML file of the optimiser has no key fused"
    if precision(settings) in HALF_PRECISION and settings.trainer.trainer.plain().get("gradient_clip_val"):
        return "Lightning cannot clip gradients in half precision for a fused optimiser"
    return None


def precision(settings: Settings) -> str:
    """Return the precision of the trainer."""
    return str(settings.trainer.trainer.plain().get("precision", "32-true"))


def missing_compiler(device: str) -> str | None:
    """Return a clause on the compiler that a device lacks; None if it has one."""
    if device == "cuda":
        return None if has_triton() else "the package triton is not installed"
    if device != "cpu":
        return f"it was not tried on {device}"
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
