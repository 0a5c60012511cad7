"""Show a build's progress: bars on a terminal, else one line for each finished teacher."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from amtml_pl.system.console import is_watched


class BuildProgress:
    """The progress display: images, images per second and time left of each teacher."""

    def __init__(
        self, console: Console, views: Mapping[str, Sequence[int]], images: Mapping[str, int]
    ) -> None:
        self.console = console
        self.views = {name: list(numbers) for name, numbers in views.items() if numbers}
        self.computed = dict.fromkeys(self.views, 0)
        self.seconds = dict.fromkeys(self.views, 0.0)
        self.last = time.perf_counter()
        self.has_waited = False
        name, rate = TextColumn("teacher {task.description}"), TextColumn("{task.fields[rate]:.0f} images/s")
        columns = (name, BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn())
        # Transient: views are built one by one under a fit's single progress line.
        self.bars = Progress(*columns, console=console, transient=True, disable=not is_watched(console))
        self.tasks = {
            name: self.bars.add_task(f"{name}, {views_text(numbers)}", total=images[name], rate=0.0)
            for name, numbers in self.views.items()
        }

    def restart_clock(self) -> None:
        """Restart the clock, so that loading and waiting do not count."""
        self.last = time.perf_counter()

    def advance(self, teacher: str, images: int) -> None:
        """Count the images of a forward pass."""
        self.computed[teacher] += images
        self.seconds[teacher] += time.perf_counter() - self.last
        self.last = time.perf_counter()
        rate = self.computed[teacher] / self.seconds[teacher]
        self.bars.update(self.tasks[teacher], advance=images, rate=rate)

    def finish(self, teacher: str) -> None:
        """Print a teacher's images and speed where no bar shows them."""
        if not is_watched(self.console):
            rate = self.computed[teacher] / self.seconds[teacher]
            what = f"Outputs of teacher {teacher} computed for {views_text(self.views[teacher])}"
            line = f"{what}: {self.computed[teacher]:,} images at {rate:,.0f} images/s."
            self.console.print(line, markup=False)

    def wait(self, root: Path) -> None:
        """Print once that another process builds everything that is left."""
        if not self.has_waited:
            what = f"Waiting for another process that computes the same teacher outputs in {root}."
            self.console.print(what, markup=False)
            self.has_waited = True


def views_text(views: Sequence[int]) -> str:
    """Return views as text, such as ``views 1 to 5``."""
    if len(views) == 1:
        return f"view {views[0]}"
    whole = list(views) == list(range(views[0], views[-1] + 1))
    return f"views {views[0]} to {views[-1]}" if whole else f"{len(views)} views"
