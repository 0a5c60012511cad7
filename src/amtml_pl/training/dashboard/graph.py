"""The student's network as TensorBoard's page "Graphs" shows it."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import torch

from amtml_pl.models.layout import as_written
from amtml_pl.models.taps import TappedNetwork, evaluation_mode

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)


def draw_graph(writer: SummaryWriter, student: TappedNetwork, image_size: int) -> None:
    """Traces the network for one image, in evaluation mode; what cannot be traced is named in a warning."""
    image = torch.zeros(1, 3, image_size, image_size, device=student.mean.device)
    with warnings.catch_warnings(), evaluation_mode(student), torch.random.fork_rng(), as_written():
        warnings.simplefilter("ignore")  # of the tracer, about Python's own control flow
        try:
            writer.add_graph(student.network, image)
        except Exception as error:  # whatever a user's network does that a trace cannot follow
            log.warning("TensorBoard shows no graph of the student: %s", str(error).partition("\n")[0])
