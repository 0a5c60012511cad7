"""Choose epochs and views by the time that a run may take here."""

from __future__ import annotations

from amtml_pl.system.records import Positive, Record
from amtml_pl.training.plan_table import seconds_per_image
from amtml_pl.training.settings import Settings

FIXED_SECONDS = 20.0  # imports, packing, the doctor, evaluation and export
OVERHEAD = 1.5  # of a whole step, with augmentation, loss terms and optimiser, over the network's share
LEAST_EPOCHS, MOST_EPOCHS = 2, 60


class TimeBudget(Record):
    """Epochs and views that fit into a time.

    Attributes:
        epochs: of the student and of each teacher to train, from 2 to 60.
        views: augmented versions of every image that pass the teachers, from 1 to ``epochs``.
        minutes: that these are estimated to take; more than the time if not even the least fits.
    """

    epochs: Positive
    views: Positive
    minutes: float


def time_budget(settings: Settings, images: int, minutes: float) -> TimeBudget:
    """Measure how many epochs and views fit into a time.

    Networks are timed on the device of the training, so that the numbers differ between machines.

    Args:
        settings: of the run; its own numbers of epochs and views do not count.
        images: training images of an epoch.
        minutes: for teachers, student and export together, above 0.
    """
    size, device = settings.dataset.image_size, settings.trainer.device
    epoch = seconds_per_image(settings.student(), size, training=True, device=device)
    view = 0.0
    for teacher in settings.selected:
        network = teacher.fresh().network
        view += seconds_per_image(network, size, training=False, device=device)
        if not teacher.has_own_weights:
            epoch += seconds_per_image(network, size, training=True, device=device)
    epoch, view = images * epoch * OVERHEAD, images * view * OVERHEAD
    epochs, views = epochs_and_views(60 * minutes - FIXED_SECONDS, epoch=epoch, view=view)
    estimated = (FIXED_SECONDS + epochs * epoch + views * view) / 60
    return TimeBudget(epochs=epochs, views=views, minutes=estimated)


def epochs_and_views(seconds: float, *, epoch: float, view: float) -> tuple[int, int]:
    """Divide a time between epochs of training and views through the teachers.

    Each epoch has a view of its own, unless views would take more than half of the time. Then the epochs take
    half of it, and use fewer views in turn.

    Args:
        seconds: to divide; may be negative.
        epoch: seconds of an epoch, teachers that are trained included, above 0.
        view: seconds of a pass of all images through all teachers; 0 without teachers.
    """
    epochs = int(seconds / min(epoch + view, 2 * epoch))
    epochs = min(max(epochs, LEAST_EPOCHS), MOST_EPOCHS)
    views = int((seconds - epochs * epoch) / view) if view else epochs
    return epochs, min(max(views, 1), epochs)
