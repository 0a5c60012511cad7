"""Leave the trials of hyperparameter searches out of a comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

from amtml_pl.comparison.recorded_run import Run
from amtml_pl.errors import UserError
from amtml_pl.runs.sweep_folder import SweepFolder


def without_trials(runs: Sequence[Run]) -> tuple[list[Run], Counter[Path]]:
    """Return the runs without groups of trials alone, and the number of trials by search.

    If all runs are trials, all are returned: a report on a search alone shows the search.
    """
    searches = searches_of(runs)
    own = {study_of(run) for run in runs if run.folder not in searches}
    kept = [run for run in runs if study_of(run) in own]
    if not kept:
        return [*runs], Counter()
    return kept, Counter(searches[run.folder] for run in runs if study_of(run) not in own)


def study_of(run: Run) -> tuple[object, ...]:
    """Return what the runs of a group share."""
    return run.record.dataset.digest, run.record.student, run.record.study


def searches_of(runs: Iterable[Run]) -> dict[Path, Path]:
    """Return the folder of the search for each run that is a trial of one."""

    @cache
    def trials(outputs: Path) -> dict[tuple[str, ...], Path]:
        """Return the searches of ``outputs/sweeps`` by the last two names of their runs' folders."""
        found = {}
        for study in sorted(outputs.glob("sweeps/*/study.db")):
            with suppress(OSError, UserError):  # a damaged search leaves no run out
                for job in SweepFolder(study.parent, "", "").jobs():
                    found[Path(job.run).parts[-2:]] = study.parent
        return found

    found = {}
    for run in runs:
        folder = run.folder.resolve()
        if len(folder.parents) > 2 and (search := trials(folder.parents[2]).get(folder.parts[-2:])):
            found[run.folder] = search
    return found
