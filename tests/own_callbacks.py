"""Callbacks and a logger that a user may bring, which fail on request."""

from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger


class Failing(Callback):
    """Raise an error at the end of the given epoch."""

    def __init__(self, epoch: int = 0) -> None:
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            raise ValueError("the disk of my laptop\nis full")


class FailingLogger(CSVLogger):
    """Raise an error for the row of an epoch."""

    def log_metrics(self, metrics, step=None):
        if "loss/ce" in metrics:
            raise KeyError("my column")
        super().log_metrics(metrics, step)
