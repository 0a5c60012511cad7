"""The two-stage schedule of the released notebook as one schedule."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def two_stage_schedule(optimizer: Optimizer, first_stage_epochs: int = 80) -> LambdaLR:
    """Stage 1 trains student and adapter, stage 2 the student alone for 200 epochs.

    The student's learning rate stays at its initial value in stage 1 and drops tenfold at epochs 100
    and 150 of stage 2, counted from 1 since the notebook steps its scheduler before the epoch. The
    adapter's drops at epochs 40 and 70 of stage 1; in stage 2 it is 0, which freezes it as not stepping
    its optimiser does. The student's momentum carries over.

    Args:
        optimizer: its parameter groups carry a ``name``; ``weighting`` is the adapter's.
        first_stage_epochs: length of stage 1.

    Returns:
        A schedule that is stepped once an epoch.
    """

    def student(epoch: int) -> float:
        second_stage_epoch = epoch - first_stage_epochs + 1
        return 0.1 ** ((second_stage_epoch >= 100) + (second_stage_epoch >= 150))

    def adapter(epoch: int) -> float:
        if epoch >= first_stage_epochs:
            return 0.0
        return 0.1 ** ((epoch + 1 >= 40) + (epoch + 1 >= 70))

    is_adapter = [group.get("name") == "weighting" for group in optimizer.param_groups]
    return LambdaLR(optimizer, [adapter if its else student for its in is_adapter])
