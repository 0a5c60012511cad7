"""How far a build is: a bar for each teacher on a terminal, else a line when it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class BuildProgress:
    """Shows images, images per second and the time left of each teacher.

    Args:
        console: to show it on.
        views: that each teacher has to look at; a teacher without any is not shown.
        images: of a view.
    """

    def __init__(self, console: Console, views: Mapping[str, Sequence[int]], images: int) -> None:
        self.console = console
        self.views = {name: list(numbers) for name, numbers in views.items() if numbers}
        self.done = dict.fromkeys(self.views, 0)
        self.seconds = dict.fromkeys(self.views, 0.0)
        self.last = time.perf_counter()
        self.has_waited = False
        columns = (
            TextColumn("teacher {task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f} images/s"), TimeRemainingColumn(),
        )  # fmt: skip
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self.tasks: dict[str, TaskID] = {
            name: self.bars.add_task(f"{name}, {said(numbers)}", total=images * len(numbers), rate=0.0)
            for name, numbers in self.views.items()
        }

    def __enter__(self) -> BuildProgress:
        """Begins to show."""
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Says what was done, where there was no bar to see it on."""
        self.bars.stop()
        if error is None and not self.console.is_terminal:
            for name, count in self.done.items():
                if count:
                    rate = count / self.seconds[name]
                    what = f"teacher {name}, {said(self.views[name])}"
                    self.console.print(f"{what}: {count:,} images computed, {rate:,.0f} images/s")

    def advanced(self, teacher: str, images: int) -> None:
        """Counts the images of a pass."""
        now = time.perf_counter()
        self.done[teacher] += images
        self.seconds[teacher] += now - self.last
        self.last = now
        self.bars.update(self.tasks[teacher], advance=images, rate=self.done[teacher] / self.seconds[teacher])

    def waits(self, root: Path) -> None:
        """Says, once, that another process has all that is left."""
        if not self.has_waited:
            self.console.print(f"Waiting for another process that builds the same outputs in {root}")
            self.has_waited = True


def said(views: Sequence[int]) -> str:
    """Views as a person says them."""
    if len(views) == 1:
        return f"view {views[0]}"
    whole = list(views) == list(range(views[0], views[-1] + 1))
    return f"views {views[0]} to {views[-1]}" if whole else f"{len(views)} views"
