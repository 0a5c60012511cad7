"""Progress of a fit on a terminal."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column

from amtml_pl.distill.module import StudentModule
from amtml_pl.system.console import console
from amtml_pl.teachers.cache.serve import CachedTeachers
from amtml_pl.teachers.cache.teacher_stores import all_stores

UPDATE_SECONDS = 0.5  # seldom, since reading the loss waits for the accelerator
WIDE = 110  # columns of a terminal with room for a bar


class FitProgress(Callback):
    """Progress line that stays in place; a narrow terminal gets no bar."""

    def __init__(self, console: Console = console) -> None:
        columns = (
            TextColumn("epoch {task.description}", table_column=Column(no_wrap=True)),
            *([BarColumn(bar_width=20)] if console.width >= WIDE else []),
            TextColumn("{task.fields[measured]}", table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn(
                "{task.fields[teachers]}",
                markup=False,
                table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
            ),
        )
        self.bars = Progress(*columns, console=console)
        self.task: TaskID | None = None
        self.images_before = 0
        self.updated = 0.0
        self.accuracy = ""

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the line on rank 0."""
        if trainer.is_global_zero:
            self.images_before = pl_module.spent.images_seen
            self.task = self.bars.add_task("", total=None, measured="", teachers=teachers_state(pl_module))
            self.bars.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Count the step, and update the numbers now and then."""
        if self.task is not None:
            steps, epochs = int(trainer.num_training_batches), int(trainer.max_epochs or 0)
            done = trainer.current_epoch * steps + batch_idx + 1
            self.bars.update(self.task, total=epochs * steps, completed=done)
            if time.monotonic() - self.updated >= UPDATE_SECONDS:
                self.updated = time.monotonic()
                self.update(self.task, trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Show the new validation accuracy, if there is any."""
        if self.task is not None:
            if "val/acc" in trainer.callback_metrics:
                self.accuracy = f"val/acc {float(trainer.callback_metrics['val/acc']):.4f}  "
            self.update(self.task, trainer, pl_module)
            self.bars.update(self.task, teachers=teachers_state(pl_module))

    def update(self, task: TaskID, trainer: pl.Trainer, module: StudentModule) -> None:
        """Update loss, accuracy and images per second."""
        spent, loss = module.spent, module.means.so_far().get("loss/total")
        rate = (spent.images_seen - self.images_before) / (spent.fit_seconds - spent.seconds_before)
        measured = f"{'' if loss is None else f'loss {loss:.4f}  '}{self.accuracy}{rate:,.0f} img/s"
        epoch = f"{trainer.current_epoch + 1}/{trainer.max_epochs}"
        self.bars.update(task, description=epoch, measured=measured)

    def on_train_end(self, *_: object) -> None:
        """Free the terminal, and leave the line as it is."""
        if self.task is not None:
            self.bars.stop()
            self.task = None

    def on_exception(self, *_: object) -> None:
        """Free the terminal, and leave the line as it is."""
        self.on_train_end()


def teachers_state(module: StudentModule) -> str:
    """Describe the source of the teachers' outputs, and how many views are complete."""
    source = module.teacher_source
    if source is None:
        return "no teachers"
    if not isinstance(source, CachedTeachers):
        return "live teachers"
    stores = all_stores(source.teachers)
    complete = sum(all(store.is_complete(view) for store in stores) for view in source.views)
    return f"cached views {complete}/{len(source.views)}{' on the device' if source.is_resident else ''}"
