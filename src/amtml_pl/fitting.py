"""What a fit needs around Lightning's trainer: Ctrl-C, evaluation of a checkpoint, the weights alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerStatus
from safetensors.torch import save

from amtml_pl.data import PackedDataModule
from amtml_pl.features import TappedNetwork
from amtml_pl.runs import write_bytes


@contextmanager
def interruptible(trainer: pl.Trainer) -> Iterator[None]:
    """Ctrl-C is a KeyboardInterrupt again, which Lightning turns into an exit with status 1."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        if trainer.state.status == TrainerStatus.INTERRUPTED:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, handler)


def evaluate(
    trainer: pl.Trainer, module: pl.LightningModule, data: PackedDataModule, checkpoint: Path
) -> dict[str, float]:
    """``val/acc``, ``val/loss``, ``test/acc``, ``test/loss`` of a checkpoint; the module then holds it."""
    found: dict[str, float] = {}
    for run in (trainer.validate, trainer.test):
        for metrics in run(module, datamodule=data, ckpt_path=checkpoint, weights_only=True, verbose=False):
            found.update({name: float(value) for name, value in metrics.items()})
    return found


def save_weights(student: TappedNetwork, file: Path) -> None:
    """Writes the student's network, without taps and normalisation, under its name only when whole."""
    state = student.network.state_dict()
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    write_bytes(file, save(tensors))  # save_file would make it readable for its owner alone
