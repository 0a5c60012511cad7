"""How far a build is: a bar for each teacher on a terminal, else a line when it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class BuildProgress:
    """Shows images, images per second and the time left of each teacher.

    Args:
        console: to show it on.
        images: that each teacher has to look at; those with none are not shown.
    """

    def __init__(self, console: Console, images: Mapping[str, int]) -> None:
        self.console = console
        self.images = {name: count for name, count in images.items() if count}
        self.done = dict.fromkeys(self.images, 0)
        self.seconds = dict.fromkeys(self.images, 0.0)
        self.last = time.perf_counter()
        self.has_waited = False
        columns = (
            TextColumn("teacher {task.description}"), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:.0f} images/s"), TimeRemainingColumn(),
        )  # fmt: skip
        self.bars = Progress(*columns, console=console, disable=not console.is_terminal)
        self.tasks: dict[str, TaskID] = {
            name: self.bars.add_task(name, total=count, rate=0.0) for name, count in self.images.items()
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
                    self.console.print(f"teacher {name}: {count:,} images computed, {rate:.0f} images/s")

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
