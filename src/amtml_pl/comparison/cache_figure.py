"""The figure of the teachers' work that the cache saved."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from amtml_pl.comparison.figure import Figure, Variant, colour, distinct, titled
from amtml_pl.comparison.groups import Group, Problem
from amtml_pl.comparison.recorded_run import Run
from amtml_pl.runs.record import CacheUse

MOST_EPOCHS = 10**9  # more means a damaged record


def cache_savings(problem: Problem) -> Figure | None:
    """Return a figure of teacher passes that were made, found in the cache and saved."""
    cached = [
        group
        for group in problem.groups
        if group.first.record.teachers and all(run.record.cache and epochs_of(run) for run in group.runs)
    ]
    if not cached:
        return None
    by_run = passes_of([run for group in cached for run in group.runs])
    paid = [[sum(each) for each in zip(*(by_run[run.folder] for run in group.runs), strict=True)]
            for group in cached]  # fmt: skip
    live = [sum(epochs_of(run) * len(run.record.teachers) for run in group.runs) for group in cached]
    made, ready = zip(*paid, strict=True)
    saved = [max(0.0, asked - own[0] - own[1]) for asked, own in zip(live, paid, strict=True)]
    names = distinct([group.name for group in cached])
    bars = [
        {"type": "bar", "orientation": "h", "name": name, "y": names, "x": [*values],
         "marker": {"color": colour(hue)},
         "hovertemplate": f"%{{y}}: %{{x:,.1~f}} passes {name}<extra></extra>"}
        for name, values, hue in (("made", made, 1), ("found ready", ready, 5), ("saved", saved, 2))
        if any(values) or name != "found ready"
    ]  # fmt: skip
    layout = {
        "barmode": "stack",
        "height": 180 + 24 * len(names),
        "xaxis": titled("passes of teachers"),
        "yaxis": {"automargin": True, "type": "category", "autorange": "reversed"},
    }
    found = f" and at least {written(sum(ready))} were found ready" if any(ready) else ""
    return Figure(
        "cache",
        "What the cache has saved",
        f"{written(sum(made))} passes of teachers over the training split were made by these runs{found}; "
        f"asking the teachers in every epoch would have made {written(sum(live))}. What several runs use is "
        f"shared among them. {time_saved(problem, cached)}",
        [Variant("", bars, layout)],
        is_wide=True,
    )


def written(passes: float) -> str:
    """Return a number of passes as text, such as ``54,000`` or ``6.3``."""
    return f"{round(passes, 1):,.12g}"


def passes_of(runs: Sequence[Run]) -> dict[Path, list[float]]:
    """Return each run's share of the passes behind its stores: made, and found ready.

    A store counts once: with the passes that its users made, and as found ready for the rest of its views.
    All its users share both equally, in any order of running.
    """
    users: dict[tuple[str, str], list[tuple[Path, CacheUse]]] = defaultdict(list)
    for run in runs:
        if (cache := run.record.cache) is not None:
            for store in stores_of(run.folder, cache):
                users[store].append((run.folder, cache))
    shares: dict[Path, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for (_, teacher), own in users.items():
        made = sum(cache.teacher_passes.get(teacher, 0.0) for _, cache in own)
        ready = max(0.0, max(cache.views for _, cache in own) - made)
        for folder, _ in own:
            shares[folder][0] += made / len(own)
            shares[folder][1] += ready / len(own)
    return shares


def stores_of(folder: Path, cache: CacheUse) -> list[tuple[str, str]]:
    """Return the stores of a run's logits, each with its teacher."""
    logits = [name for name in cache.stores if name.rpartition("/")[2].startswith("logits-")]
    if logits:
        return [(store, store.rpartition("/")[0]) for store in logits]
    return [(str(folder), teacher) for teacher in cache.teacher_passes]


def epochs_of(run: Run) -> int:
    """Return how many epochs a run had; 0 if its record has no valid number."""
    epochs = run.record.budget.get("epochs")
    return epochs if type(epochs) is int and 0 < epochs < MOST_EPOCHS else 0


def time_saved(problem: Problem, cached: Sequence[Group]) -> str:
    """Return a sentence on the time for teachers in live runs and in cached runs.

    Live runs on other pixels do not count.
    """
    per_epoch: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for run in problem.runs:
        if run.record.teacher_source == "live" and epochs_of(run):
            seconds = run.record.timed().teacher_seconds / epochs_of(run)
            per_epoch[tuple(run.record.teachers)].append(seconds)
    known = [run for group in cached for run in group.runs if tuple(run.record.teachers) in per_epoch]
    if not known:
        return "How many seconds that saved is not told: no live run of these teachers was measured."
    live = sum(statistics.fmean(per_epoch[tuple(run.record.teachers)]) * epochs_of(run) for run in known)
    times = [run.record.timed() for run in known]
    paid = sum(time.teacher_seconds + time.cache_build_seconds for time in times)
    return (
        f"Live runs of the same teachers waited {live / 60:,.1f} minutes for as many epochs as {len(known)} "
        f"cached runs have, which waited {paid / 60:,.1f} minutes, what they built themselves included."
    )
