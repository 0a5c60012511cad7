"""Find the folders that ``runs=`` names by path, by pattern or as a sweep."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from amtml_pl.errors import UserError
from amtml_pl.runs.sweep_folder import SweepFolder

FIRST_RUN = "python -m amtml_pl.train experiment=digits_amtml"


def named_folders(words: Sequence[str]) -> tuple[list[Path], Path, Path]:
    """Return the folders to search, their common parent, and the report's default folder.

    Args:
        words: folders, sweeps' folders and patterns, as typed. A sweep stands for the runs of its jobs.

    Raises:
        UserError: if a word names no folder, or a sweep without a job.
    """
    found: dict[Path, None] = {}
    for word in words:
        path = Path(os.path.expanduser(word))  # noqa: PTH111 - an unknown ~user stays as it is
        try:
            matches = [path] if path.is_dir() else [*folders_like(path)]
            folders = [run for match in matches for run in searched(match)]
        except OSError as error:
            what = f"The folder {path} cannot be read: {error.strerror}."
            raise UserError(what, fix="pass runs=FOLDER with a readable folder") from error
        if not folders:
            what = f"The path {path.absolute()} is not a folder" if not matches else f"{path} has no job"
            fix = f"pass runs=FOLDER or a pattern in quotes, or train a first run: {FIRST_RUN}"
            raise UserError(f"{what} (got runs={word!r}).", fix=fix)
        found.update(dict.fromkeys(folders))
    places = [*found]
    below = places[0]
    if len(places) > 1:
        places = [place.resolve() for place in places]
        existing = [place for place in places if place.is_dir()] or places  # a run may have been deleted
        below = Path(os.path.commonpath(existing))
        if below.parent == below:  # the root: of folders on different disks
            below = existing[0]
    return places, below, (path if len(words) == 1 and is_sweep(path) else below) / "report"


def folders_like(pattern: Path) -> Iterator[Path]:
    """Yield the folders that match a shell-style pattern."""
    matches = sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207
    yield from (Path(match) for match in matches if Path(match).is_dir())


def is_sweep(folder: Path) -> bool:
    """Return True for the folder of a sweep."""
    return (folder / "sweep.json").is_file()


def searched(folder: Path) -> Iterator[Path]:
    """Yield a folder, or a sweep's runs, also of moved outputs."""
    if not is_sweep(folder):
        yield folder
        return
    outputs = folder.resolve().parent.parent
    for job in SweepFolder(folder, "", "").jobs():
        recorded = Path(job.run)
        moved = outputs / Path(*recorded.parts[-3:])  # runs/EXPERIMENT/NAME
        yield moved if moved.is_dir() else recorded
