"""Event file of a run: `conf/logger/tensorboard.yaml`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pytorch_lightning.loggers import Logger
from torch import Tensor

from amtml_pl.errors import UserError
from amtml_pl.training.dashboard.drawing import pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch.utils.tensorboard import SummaryWriter

BINS = np.linspace(0, 1, 41)


class TensorBoard(Logger):
    """Logger that writes for TensorBoard into the run's folder.

    `training.dashboard.callback.Dashboard` decides the content. A step on its axes is an epoch, counted as in
    ``metrics.csv``. Lightning hands metrics to a logger after it has written ``last.ckpt``. A run that is
    killed between the two would lose an epoch, so the dashboard writes them before.

    Args:
        save_dir: the run's folder.
        figures_every: epochs between two sets of figures and of gradient shares, 1 or more. The last set of
            figures is drawn after the fit.

    Raises:
        UserError: if ``figures_every`` is less than 1.
    """

    def __init__(self, save_dir: str | Path, figures_every: int = 5) -> None:
        super().__init__()
        if figures_every < 1:
            raise UserError(
                f"logger.tensorboard.figures_every is too small (got {figures_every}, expected 1 or more).",
                fix="set logger.tensorboard.figures_every=5",
            )
        self.folder, self.figures_every = Path(save_dir), figures_every
        self.writer: SummaryWriter | None = None
        self.latest: dict[str, float] = {}

    def begin(self, epoch: int) -> bool:
        """Open an event file, and void events of this and later epochs.

        Returns:
            True if no earlier event remains.
        """
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
        """Return the writer; raise a RuntimeError before `begin` and after `close`."""
        if self.writer is None:
            raise RuntimeError("The event file is not open.")
        return self.writer

    @property
    def events(self) -> Any:
        """Return the low-level event writer."""
        return self.opened.file_writer

    def scalars(self, values: Mapping[str, float], epoch: int) -> None:
        """Write one point on each of these curves."""
        for tag, value in values.items():
            self.opened.add_scalar(tag, value, epoch)

    def histogram(self, tag: str, values: Tensor, epoch: int) -> None:
        """Write the distribution of values in [0, 1], on an axis from 0 to 1."""
        numbers = values.double().clamp(0, 1).numpy()
        counts, limits = np.histogram(numbers, bins=BINS)
        # add_histogram would end the axis at the data, so that teachers could not be compared.
        self.opened.add_histogram_raw(
            tag, min=0.0, max=1.0, num=len(numbers), sum=numbers.sum(), sum_squares=numbers @ numbers,
            bucket_limits=limits[1:].tolist(), bucket_counts=counts.tolist(), global_step=epoch,
        )  # fmt: skip

    def figure(self, tag: str, figure: Figure, epoch: int) -> None:
        """Write a figure as an image."""
        self.opened.add_image(tag, pixels(figure), epoch, dataformats="HWC")

    def close(self) -> None:
        """Close the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    @property
    def name(self) -> str:
        """Return an empty name: the folder is the run's."""
        return ""

    @property
    def version(self) -> str:
        """Return an empty version: the folder is the run's."""
        return ""

    @property
    def save_dir(self) -> str:
        """Return the folder of the run."""
        return str(self.folder)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep a callback's numbers for the dashboard, which has the row of an epoch already."""
        if "epoch" not in metrics:
            self.latest |= metrics

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Ignore hyperparameters, which are written with the final metrics."""

    def finalize(self, status: str) -> None:
        """Close the file of a failed fit; after a completed one, results still follow."""
        if status != "success":
            self.close()
