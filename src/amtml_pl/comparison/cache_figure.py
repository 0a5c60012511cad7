"""The figure of what the cache has saved."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from amtml_pl.comparison.figure import Figure, Variant, colour, distinct, titled
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.recorded_run import Run

MOST_EPOCHS = 10**9  # whatever says more is damaged


@dataclass
class Passes:
    """Passes of teachers over the training split that the cache holds the outputs of.

    Attributes:
        made: by the runs that are compared.
        ready: before any of them, at least: by ``amtml_pl.cache``, or by other runs.
    """

    made: float = 0.0
    ready: float = 0.0

    @classmethod
    def all_of(cls, parts: Sequence[Passes]) -> Passes:
        """Their sum."""
        return cls(sum(part.made for part in parts), sum(part.ready for part in parts))


def cache_savings(problem: Problem) -> Figure | None:
    """Passes of the teachers over the training split: those that were made and those a live run makes."""
    cached = [
        group for group in problem.groups if group.first.teachers and all(map(tells_passes, group.runs))
    ]
    if not cached:
        return None
    shares = shares_of([run for group in cached for run in group.runs])
    paid = [Passes.all_of([shares[run.folder] for run in group.runs]) for group in cached]
    live = [sum(run.budget["epochs"] * len(run.teachers) for run in group.runs) for group in cached]
    saved = [max(0.0, asked - own.made - own.ready) for asked, own in zip(live, paid, strict=True)]
    total = Passes.all_of(paid)
    names = distinct([group.name for group in cached])
    bars = [
        {"type": "bar", "orientation": "h", "name": name, "y": names, "x": values,
         "marker": {"color": colour(hue)},
         "hovertemplate": f"%{{y}}: %{{x:,.1~f}} passes {name}<extra></extra>"}
        for name, values, hue in (
            ("made", [own.made for own in paid], 1),
            ("found ready", [own.ready for own in paid], 5),
            ("saved", saved, 2),
        )
        if any(values) or name != "found ready"
    ]  # fmt: skip
    layout = {
        "barmode": "stack",
        "height": 180 + 24 * len(names),
        "xaxis": titled("passes of teachers"),
        "yaxis": {"automargin": True, "type": "category", "autorange": "reversed"},
    }
    ready = f" and at least {written(total.ready)} were found ready" if total.ready else ""
    return Figure(
        "cache",
        "What the cache has saved",
        f"{written(total.made)} passes of teachers over the training split were made by these runs{ready}; "
        f"asking the teachers in every epoch would have made {written(sum(live))}. What several runs use is "
        f"shared among them. {time_saved(problem, cached)}",
        [Variant("", bars, layout)],
        is_wide=True,
    )


def written(passes: float) -> str:
    """``54,000`` or ``6.3``."""
    return f"{round(passes, 1):,.12g}"


def shares_of(runs: Sequence[Run]) -> Mapping[Path, Passes]:
    """Each run's share, by its folder, of the passes behind the stores that it uses.

    A store counts once, with the passes that its users made, and those for the rest of its views as found
    ready; what it took is shared by them, whichever of them came first.
    """
    users: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        for store in stores_of(run):
            users[store].append(run)
    shares: dict[Path, Passes] = defaultdict(Passes)
    for (_, teacher), own in users.items():
        made = sum((run.teacher_passes or {}).get(teacher, 0.0) for run in own)
        ready = max(0.0, max(run.cached_views for run in own) - made)
        for run in own:
            shares[run.folder].made += made / len(own)
            shares[run.folder].ready += ready / len(own)
    return shares


def stores_of(run: Run) -> list[tuple[str, str]]:
    """Where the logits of a run's teachers are kept, each with the teacher; an older record's are its own."""
    if run.logits_stores:
        return [(store, store.rpartition("/")[0]) for store in run.logits_stores]
    return [(str(run.folder), teacher) for teacher in run.teacher_passes or {}]


def tells_passes(run: Run) -> bool:
    """Whether a run says how often its teachers saw the training split, and how many epochs it had."""
    return run.teacher_passes is not None and epochs_of(run) is not None


def epochs_of(run: Run) -> int | None:
    """How many epochs a run had; None where its record has no such number."""
    epochs = run.budget.get("epochs")
    return epochs if type(epochs) is int and 0 < epochs < MOST_EPOCHS else None


def time_saved(problem: Problem, cached: Sequence[Group]) -> str:
    """The seconds that live runs of the same teachers have measured per epoch, times the cached epochs.

    Only from live runs on the same pixels: a time that nobody has measured is not told.
    """
    per_epoch: dict[tuple[str, ...], list[float]] = {}
    for run in problem.runs:
        epochs = epochs_of(run)
        if run.facts.get("teacher_source") == "live" and epochs is not None:
            per_epoch.setdefault(run.teachers, []).append(run.timing["teacher_seconds"] / epochs)
    known = [run for group in cached for run in group.runs if run.teachers in per_epoch]
    if not known:
        return "How many seconds that saved is not told: no live run of these teachers was measured."
    live = sum(statistics.fmean(per_epoch[run.teachers]) * run.budget["epochs"] for run in known)
    paid = sum(run.timing["teacher_seconds"] + run.timing["cache_build_seconds"] for run in known)
    return (
        f"Live runs of the same teachers waited {live / 60:,.1f} minutes for as many epochs as {len(known)} "
        f"cached runs have, which waited {paid / 60:,.1f} minutes, what they built themselves included."
    )
