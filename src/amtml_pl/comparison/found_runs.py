"""Find the runs below a folder, and the reasons why some cannot be compared."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from amtml_pl.comparison.named_folders import FIRST_RUN
from amtml_pl.comparison.recorded_run import RUNNING, UNKNOWN, UNRECORDED, NotCompared, Run, read_run
from amtml_pl.comparison.trials import without_trials
from amtml_pl.errors import UserError, first_line
from amtml_pl.runs.folder import RunFolder
from amtml_pl.runs.record import NetworkFacts
from amtml_pl.system.console import counted

UNREADABLE = "cannot be read: "


@dataclass(frozen=True)
class LeftOut:
    """A run, a search or an unreadable folder that is not compared, with the reason."""

    folder: Path
    reason: str


@dataclass
class FoundRuns:
    """The runs below a folder: complete and valid ones, and all others."""

    compared: list[Run] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def find_runs(folder: Path, metric: str, *, trials: bool = False, places: Sequence[Path] = ()) -> FoundRuns:
    """Return all runs below a folder, compared and left out.

    Args:
        folder: any tree of run folders.
        metric: the metric that a compared run must have.
        trials: True to compare the trials of hyperparameter searches too.
        places: folders in it to search; none: all of it.

    Raises:
        UserError: if no run can be compared.
    """
    places = places or [folder]
    found = FoundRuns()
    by_seed: dict[tuple[str, NetworkFacts, str, int], Path] = {}
    others: set[str] = set()
    for run_folder in run_folders(places, found.left_out):
        try:
            run = read_run(RunFolder(run_folder), metric)
            record = run.record
            key = (record.dataset.digest, record.student, record.study, record.seed)
            twin = by_seed.setdefault(key, run_folder)
        except NotCompared as reason:
            others.update(reason.metrics)
            found.left_out.append(LeftOut(run_folder, str(reason)))
        except UserError as error:
            found.left_out.append(LeftOut(run_folder, first_line(error)))
        except OSError as error:
            found.left_out.append(LeftOut(run_folder, f"{UNREADABLE}{error.strerror or error}"))
        else:
            if twin == run_folder:
                found.compared.append(run)
            else:
                repeats = f"has the same settings and seed ({record.seed}) as {relative_name(twin, folder)}"
                found.left_out.append(LeftOut(run_folder, repeats))
    if not found.compared:
        if others:
            raise without_metric(folder, metric, others)
        raise nothing_found(folder, places, found.left_out)
    return found if trials else leave_out_trials(found)


def leave_out_trials(found: FoundRuns) -> FoundRuns:
    """Return the runs without groups of trials, whose number is a reason for each search."""
    kept, counts = without_trials(found.compared)
    reason = "of a hyperparameter search (trials=true compares trials too)"
    trials = [LeftOut(search, f"{counted(count, 'trial')} {reason}") for search, count in counts.items()]
    return FoundRuns(kept, [*found.left_out, *trials])


def run_folders(places: Sequence[Path], left_out: list[LeftOut]) -> Iterator[Path]:
    """Yield every run folder in some places, one place after the other.

    Links are followed, each folder is searched once; unreadable folders are added to ``left_out``.
    """

    def unreadable(error: OSError) -> None:
        left_out.append(LeftOut(Path(error.filename), f"{UNREADABLE}{error.strerror}"))

    seen: set[str] = set()
    walks = (os.walk(place, onerror=unreadable, followlinks=True) for place in places)
    for folder, subfolders, files in chain.from_iterable(walks):
        if (real := os.path.realpath(folder)) in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        if "run.json" in files or ("config.yaml" in files and ".lock" in files):
            yield Path(folder)


def without_metric(folder: Path, metric: str, others: Collection[str]) -> UserError:
    """Return the error for completed runs with other metrics only."""
    names = sorted(others, key=lambda name: (name.startswith("teacher/"), name))
    close = difflib.get_close_matches(metric, names, n=1) or names[:1]
    return UserError(
        f"No completed run below {folder.resolve()} has the metric (got {metric!r}, expected one of "
        f"{', '.join(names):.600}).",
        fix=f"pass metric={close[0]}",
    )


def nothing_found(folder: Path, places: Sequence[Path], left_out: Sequence[LeftOut]) -> UserError:
    """Return the error for places below a folder without a run to compare."""
    if not left_out:
        searched = ", ".join(str(place.resolve()) for place in places)
        subject = f"The folder {searched} contains" if len(places) == 1 else f"The folders {searched} contain"
        fix = f"pass runs=FOLDER, or train a first run: {FIRST_RUN}"
        return UserError(f"{subject} no run.", fix=fix)
    listed = "".join(f"\n  - {relative_name(out.folder, folder)}: {out.reason}" for out in left_out[:20])
    more = f"\n  ... and {len(left_out) - 20} more" if len(left_out) > 20 else ""
    return UserError(f"No completed run exists below {folder.resolve()}:{listed}{more}", fix=remedy(left_out))


def remedy(left_out: Sequence[LeftOut]) -> str:
    """Return the fix for a folder without a run to compare."""
    reasons = {out.reason for out in left_out}
    if UNKNOWN in reasons or any(RUNNING in reason for reason in reasons):
        return "wait until a run has ended, then repeat this command"
    if reasons & {"interrupted", "failed", UNRECORDED}:
        return "repeat the training command of a run to resume the run"
    if any(UNREADABLE in reason for reason in reasons):
        return "ask the owner for read access (ls -ld FOLDER shows the owner), or pass runs=FOLDER"
    return "repeat the training command of a run with force=true"


def relative_name(run_folder: Path, below: Path) -> str:
    """Return a run's folder relative to the searched one, if it is below it."""
    is_below = run_folder != below and run_folder.is_relative_to(below)
    return str(run_folder.relative_to(below) if is_below else run_folder)
