"""Event file of a run: `conf/logger/tensorboard.yaml`."""

from __future__ import annotations

import logging
import warnings
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_lightning.loggers import Logger
from torch import Tensor

from amtml_pl.errors import UserError, first_line
from amtml_pl.models.layout import as_written
from amtml_pl.models.taps import TappedNetwork, evaluation_mode
from amtml_pl.training.dashboard.drawing import pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

BINS = np.linspace(0, 1, 41)


class TensorBoard(Logger):
    """Logger that writes for TensorBoard into the run's folder.

    `training.dashboard.callback.Dashboard` decides the content. A step on its axes is an epoch, counted as in
    ``metrics.csv``. Lightning hands metrics to a logger after ``last.ckpt`` has been written: a run that is
    killed between the two would lose an epoch, so the dashboard takes them from the fit before that instead.

    Args:
        save_dir: the run's folder.
        budget: the share of the fit's time that may go into the dashboard, in [0, 1].
        figures_every: epochs between two sets of figures, 1 or more; fewer are drawn where the budget is
            spent. The last set is drawn after the fit, always.

    Raises:
        UserError: if one of them is out of range.
    """

    def __init__(self, save_dir: str | Path, budget: float = 0.02, figures_every: int = 1) -> None:
        super().__init__()
        if not 0 <= budget <= 1:
            raise UserError(
                f"logger.tensorboard.budget is {budget}; expected a share of the fit's time in [0, 1].",
                fix="logger.tensorboard.budget=0.02",
            )
        if figures_every < 1:
            raise UserError(
                f"logger.tensorboard.figures_every is {figures_every}; expected 1 or more epochs.",
                fix="logger.tensorboard.figures_every=5",
            )
        self.folder = Path(save_dir)
        self.budget, self.figures_every = budget, figures_every
        self.writer: SummaryWriter | None = None

    def begin(self, epoch: int) -> bool:
        """Open an event file; void this epoch and later; return whether no earlier event remains."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # only here: they take seconds
        from torch.utils.tensorboard import SummaryWriter

        before = [*self.folder.glob("events.out.tfevents.*")]
        if epoch == 0:  # TensorBoard itself keeps void texts and charts
            for file in before:
                file.unlink()
        others = epoch > 0 and bool(before)
        self.writer = SummaryWriter(str(self.folder))
        if others:
            void = Event(step=epoch, session_log=SessionLog(status=SessionLog.START))
            self.events.event_writer.add_event(void)
        return not others

    @property
    def opened(self) -> SummaryWriter:
        """Return the writer; a RuntimeError before `begin` and after `close`."""
        if self.writer is None:
            raise RuntimeError("The event file is not open.")
        return self.writer

    @property
    def events(self) -> Any:
        """Event writer below the writer, for calls that it has no method for."""
        return self.opened.file_writer

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Write one point on each of these curves."""
        for tag, value in values.items():
            self.opened.add_scalar(tag, value, epoch)

    def histogram(self, tag: str, values: Tensor, epoch: int) -> None:
        """Write the distribution of numbers in [0, 1]."""
        self.opened.add_histogram(tag, values.numpy(), epoch, bins=BINS)

    def figure(self, tag: str, figure: Figure, epoch: int) -> None:
        """Write a figure as an image."""
        self.opened.add_image(tag, pixels(figure), epoch, dataformats="HWC")

    def graph(self, student: TappedNetwork, image_size: int) -> None:
        """Trace the network for one image, in evaluation mode; a failure is a warning."""
        image = torch.zeros(1, 3, image_size, image_size, device=student.mean.device)
        with warnings.catch_warnings(), evaluation_mode(student), torch.random.fork_rng(), as_written():
            warnings.simplefilter("ignore")  # of the tracer, about Python's own control flow
            try:
                self.opened.add_graph(student.network, image)
            except Exception as error:  # any error of a user's network that cannot be traced
                log.warning("TensorBoard shows no graph of the student: %s", first_line(error))

    def flush(self) -> None:
        """Write all pending events to the file."""
        self.opened.flush()

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    @property
    def name(self) -> str:
        """Empty name: the folder is the run's."""
        return ""

    @property
    def version(self) -> str:
        """Empty version: the folder is the run's."""
        return ""

    @property
    def save_dir(self) -> str:
        """Folder of the run."""
        return str(self.folder)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Ignore metrics, which the dashboard has already written."""

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Ignore hyperparameters, which are written with the final metrics."""

    def finalize(self, status: str) -> None:
        """Close the file of a failed fit; after a completed one, results still follow."""
        if status != "success":
            self.close()
