"""Learning-rate schedules that are stepped after every optimiser step."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from amtml_pl.errors import UserError


def schedule_of(
    make: Callable[..., LRScheduler], optimizer: Optimizer, steps_per_epoch: int
) -> tuple[LRScheduler, int]:
    """Return an optimiser's schedule, and how often an epoch steps it.

    Args:
        make: the constructor. One that binds ``steps_per_epoch`` counts steps, any other counts epochs.
        optimizer: with the initial learning rate of each group.
        steps_per_epoch: 1 or more.
    """
    if isinstance(make, partial) and "steps_per_epoch" in make.keywords:
        return make(optimizer, steps_per_epoch=steps_per_epoch), steps_per_epoch
    return make(optimizer), 1


def cosine_with_warmup(
    optimizer: Optimizer,
    epochs: int,
    warmup_epochs: float = 5.0,
    start_factor: float = 0.01,
    steps_per_epoch: int | None = None,
) -> LRScheduler:
    """Return a schedule that rises linearly, then falls to 0 along a cosine.

    Args:
        optimizer: its learning rates are the highest ones.
        epochs: of warm-up and cosine together.
        warmup_epochs: 0 or more, below ``epochs``; 0 is a cosine alone.
        start_factor: share of the learning rate in the first step, in (0, 1].
        steps_per_epoch: optimiser steps of an epoch; None counts epochs.

    Raises:
        UserError: if the warm-up leaves no step for the cosine.
    """
    steps = steps_per_epoch or 1
    total, rise = epochs * steps, round(warmup_epochs * steps)
    if not 0 <= rise < total:
        raise UserError(
            f"scheduler.warmup_epochs does not fit the run (got {warmup_epochs}, expected 0 or more and less "
            f"than its {epochs} epochs).",
            fix=f"scheduler.warmup_epochs={epochs / 10:g}",
        )
    fall = CosineAnnealingLR(optimizer, T_max=total - rise)
    if not rise:
        return fall
    warmup = LinearLR(optimizer, start_factor=start_factor, total_iters=rise)
    return SequentialLR(optimizer, [warmup, fall], milestones=[rise])


def one_cycle(
    optimizer: Optimizer,
    epochs: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    cycle_momentum: bool = True,
    steps_per_epoch: int | None = None,
) -> OneCycleLR:
    """Return torch's ``OneCycleLR``; each group's learning rate is its maximum.

    Args:
        optimizer: SGD needs momentum if ``cycle_momentum``.
        epochs: of the whole cycle.
        pct_start: share of the steps in which the learning rate rises, in (0, 1).
        div_factor: maximum ÷ first learning rate.
        final_div_factor: first ÷ last learning rate.
        cycle_momentum: True to lower momentum (Adam: beta1) from 0.95 to 0.85 where the learning rate rises.
        steps_per_epoch: optimiser steps of an epoch; None counts epochs.
    """
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        epochs=epochs,
        steps_per_epoch=steps_per_epoch or 1,
        pct_start=pct_start,
        div_factor=div_factor,
        final_div_factor=final_div_factor,
        cycle_momentum=cycle_momentum,
    )
