"""Whether a learning-rate schedule fits the length of its run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def unfitting_schedule(scheduler: Mapping[str, Any], epochs: int) -> str | None:
    """Return what of a schedule does not happen in a run, and what to type; None if all does.

    A schedule is not changed: published milestones stay what was published.

    Args:
        scheduler: the node, whose arguments are named as torch's schedules name them.
        epochs: of the run; a schedule is stepped after each.
    """
    numbers = {key: value for key, value in scheduler.items() if type(value) is int}
    milestones = scheduler.get("milestones")
    if isinstance(milestones, list) and milestones and max(milestones) >= epochs:
        late = " and ".join(str(milestone) for milestone in milestones if milestone >= epochs)
        scaled = [milestone * 3 * epochs // (4 * max(milestones)) for milestone in milestones]
        return warning("milestones", milestones, epochs, f"the rate never changes at {late}", scaled)
    for key, within in (("step_size", epochs - 1), ("T_0", epochs), ("step_size_up", epochs)):
        if numbers.get(key, 0) > within:
            return warning(key, numbers[key], epochs, "its first period does not end", epochs // 3)
    for key in ("T_max", "total_steps"):
        if key in numbers and numbers[key] != epochs:
            happens = "it goes beyond its end" if numbers[key] < epochs else "it does not reach its end"
            return warning(key, numbers[key], epochs, happens, epochs)
    changes = scheduler.get("factor", scheduler.get("start_factor")) != 1
    if changes and numbers.get("total_iters", 0) > epochs:
        return warning("total_iters", numbers["total_iters"], epochs, "it does not reach its end", epochs)
    return None


def warning(key: str, value: object, epochs: int, happens: str, fitting: object) -> str:
    """Return the warning for an argument, with a value that fits."""
    typed = f"'scheduler.{key}={fitting}'".replace(" ", "") if epochs > 3 else "scheduler=constant"
    return f"scheduler.{key}={value}: in {epochs} epoch{'s' * (epochs != 1)} {happens}. What fits: {typed}."
