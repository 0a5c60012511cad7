"""Check that a learning-rate schedule fits the length of its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from amtml_pl.system.console import counted


def schedule_warnings(scheduler: Mapping[str, Any], epochs: int) -> Iterator[str]:
    """Yield settings of a schedule that do not fit the run's length, with better values.

    Args:
        scheduler: the node, with the argument names of torch's schedules; of a sequence, each is checked.
        epochs: of the run; a schedule is stepped after each.
    """
    parts = scheduler.get("schedulers")
    nodes = parts if isinstance(parts, list) else [scheduler]
    places = [f"scheduler.schedulers.{n}" for n in range(len(nodes))] if parts else ["scheduler"]
    for place, node in zip(places, nodes, strict=True):
        for key, happens, fitting in unfitting(node, epochs):
            typed = f"'{place}.{key}={fitting}'".replace(" ", "") if epochs > 3 else "scheduler=constant"
            count = counted(epochs, "epoch")
            yield f"{place}.{key}={node[key]} does not fit {count}: {happens}. Use {typed}."


def unfitting(node: Mapping[str, Any], epochs: int) -> Iterator[tuple[str, str, object]]:
    """Yield each argument that does not fit, its effect, and a value that fits."""
    numbers = {key: value for key, value in node.items() if type(value) is int}
    milestones = node.get("milestones")
    if isinstance(milestones, list) and milestones and "schedulers" not in node and max(milestones) >= epochs:
        late = ", ".join(str(milestone) for milestone in milestones if milestone >= epochs)
        scaled = {max(1, milestone * 3 * epochs // (4 * max(milestones))) for milestone in milestones}
        yield "milestones", f"the run never reaches {late}", sorted(scaled)
    for key, within in (("step_size", epochs - 1), ("T_0", epochs), ("step_size_up", epochs)):
        if numbers.get(key, 0) > within:
            yield key, "the run ends before the second period", epochs // 3
    for key in ("T_max", "epochs"):
        if numbers.get(key, epochs) != epochs:
            first, last = ("schedule", "run") if numbers[key] < epochs else ("run", "schedule")
            yield key, f"the {first} ends before the {last}", epochs
    if numbers.get("total_steps", 0) > epochs:
        yield "total_steps", "the run ends before the schedule", epochs
    factors = {node[key] for key in ("factor", "start_factor", "end_factor") if key in node}
    if factors != {1} and numbers.get("total_iters", 0) > epochs:
        yield "total_iters", "the run ends before the schedule", epochs


def schedule_problems(scheduler: Mapping[str, Any], epochs: int) -> Iterator[str]:
    """Yield a schedule that stops before the run, and steps that the run counts itself."""
    steps = scheduler.get("total_steps")
    if type(steps) is int and 0 < steps < epochs:
        yield f"scheduler.total_steps={steps}: the schedule ends before the run (expected {epochs} epochs)"
    if scheduler.get("steps_per_epoch") is not None:
        yield f"scheduler.steps_per_epoch={scheduler['steps_per_epoch']}: the run counts them (expected null)"
