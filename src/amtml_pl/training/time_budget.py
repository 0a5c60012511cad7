"""Choose a number of epochs by the time that a run may take here."""

from __future__ import annotations

from amtml_pl.training.plan_table import seconds_per_image
from amtml_pl.training.settings import Settings

FIXED_SECONDS = 20.0  # imports, packing, the doctor, evaluation and export
OVERHEAD = 1.5  # of a whole step, with augmentation, loss terms and optimiser, over the network's share
LEAST_EPOCHS, MOST_EPOCHS = 2, 60


def epochs_within(settings: Settings, images: int, minutes: float) -> int:
    """Return how many epochs of student and teachers fit into a time.

    Networks are timed on the device of the training, so that the number differs between machines.

    Args:
        settings: of the run; its own number of epochs does not count.
        images: training images of an epoch.
        minutes: for teachers, student and export together, above 0.
    """
    size, device = settings.dataset.image_size, settings.trainer.device
    per_image = seconds_per_image(settings.student(), size, training=True, device=device)
    for teacher in settings.selected:
        network = teacher.fresh().network
        per_image += seconds_per_image(network, size, training=False, device=device)
        if not teacher.has_own_weights:
            per_image += seconds_per_image(network, size, training=True, device=device)
    epochs = (60 * minutes - FIXED_SECONDS) / (images * per_image * OVERHEAD)
    return int(min(max(epochs, LEAST_EPOCHS), MOST_EPOCHS))
