"""Early stopping: `conf/callbacks/early_stopping.yaml`."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import early_stopping
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason


class EarlyStopping(early_stopping.EarlyStopping):
    """Lightning's early stopping; a stopped fit that is resumed stays stopped."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Train no further epoch if the checkpoint is of a stopped fit."""
        trainer.should_stop = self.stopping_reason is not EarlyStoppingReason.NOT_STOPPED
