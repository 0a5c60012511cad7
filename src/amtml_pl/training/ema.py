"""Exponential moving average of the weights: `conf/callbacks/ema.yaml`."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EMAWeightAveraging

# What a module only refers to, and may be large: the average needs no copy of it.
REFERRED = ("teacher_source", "heads", "compiled", "make_optimizer", "make_scheduler")


class Ema(EMAWeightAveraging):
    """Lightning's average, for a module that refers to teachers, and for evaluations after the fit."""

    def __init__(
        self, decay: float = 0.999, update_every_n_steps: int = 1, update_starting_at_step: int | None = None
    ) -> None:
        super().__init__(
            decay=decay,
            update_every_n_steps=update_every_n_steps,
            update_starting_at_step=update_starting_at_step,
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Copy the module without what it refers to."""
        if stage != "fit":
            return
        referred = {name: vars(pl_module).pop(name) for name in REFERRED if name in vars(pl_module)}
        self._device = trainer.strategy.root_device  # where the module will be; it is on the CPU until then
        try:
            super().setup(trainer, pl_module, stage)
        finally:
            vars(pl_module).update(referred)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average; before its first update, it is the current weights."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._latest_update_step == 0 and self._average_model is not None:
            self._average_model.update_parameters(pl_module)  # the first one copies
            self._average_model.n_averaged.zero_()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore both sets of weights, if a fit is resumed."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Forget the average, which Lightning would evaluate in place of a loaded checkpoint."""
        self._average_model = None
