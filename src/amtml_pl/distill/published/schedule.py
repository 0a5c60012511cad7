"""Two-stage schedule of the published notebook as one schedule, of any length."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

EPOCHS = 280  # the notebook's: 80 of stage 1, 200 of stage 2


def first_stage_epochs(epochs: int) -> int:
    """Return the length of stage 1: 80 of 280 epochs, scaled, at least 1."""
    return max(1, round(epochs * 80 / EPOCHS))


def two_stage_schedule(optimizer: Optimizer, epochs: int = EPOCHS) -> LambdaLR:
    """Return a schedule whose stage 1 trains student and adapter, stage 2 the student.

    In 280 epochs: the student's learning rate stays at its initial value in stage 1 and drops tenfold at
    epochs 100 and 150 of stage 2, counted from 1 since the notebook steps its scheduler before the epoch.
    The adapter's drops at epochs 40 and 70 of stage 1, and is 0 in stage 2. The student's momentum carries
    over. Other lengths scale all of these.

    Args:
        optimizer: its parameter groups carry a ``name``; ``weighting`` is the adapter's.
        epochs: of both stages together.
    """
    first = first_stage_epochs(epochs)
    scale = epochs / EPOCHS

    def student(epoch: int) -> float:
        second_stage_epoch = epoch - first + 1
        return 0.1 ** ((second_stage_epoch >= 100 * scale) + (second_stage_epoch >= 150 * scale))

    def adapter(epoch: int) -> float:
        return 0.1 ** ((epoch + 1 >= 40 * scale) + (epoch + 1 >= 70 * scale)) if epoch < first else 0.0

    is_adapter = [group.get("name") == "weighting" for group in optimizer.param_groups]
    return LambdaLR(optimizer, [adapter if its else student for its in is_adapter])
