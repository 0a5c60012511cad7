"""Checkpoints are whole, know their place in the epoch, and are written before a stop."""

import signal

import pytest
import torch

from amtml_pl.errors import Preempted, UserError
from amtml_pl.system.signals import StopRequest
from amtml_pl.training.checkpoints import AtomicCheckpointIO, LastCheckpoint
from recorded_batches import Recorder, module, trainer


def test_a_failed_write_leaves_the_checkpoint_before(tmp_path):
    file = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, file)
    with pytest.raises(UserError, match=r"last.ckpt cannot be written: .*The previous checkpoint is intact"):
        AtomicCheckpointIO().save_checkpoint({"step": Unwritable()}, file)
    assert torch.load(file, weights_only=True) == {"step": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


class Unwritable:
    def __reduce__(self):
        raise OSError(28, "No space left on device")


def fitted(folder, stopped_after=None):
    """Return the batches of a fit, in order, and the batches done in each of its checkpoints."""
    stop, places, data, learner = StopRequest(), [], module(train_size=100), Recorder()
    file = folder / "last.ckpt"
    fit = trainer(folder, 2, callbacks=[LastCheckpoint(file, data, 0.0, stop)])
    save, learn = fit.save_checkpoint, learner.training_step

    def noted(file):
        save(file)
        places.append(torch.load(file, weights_only=True)["PackedDataModule"]["batches_done"])

    def stopping(batch, batch_idx):
        stop.number = signal.SIGTERM if len(learner.seen) + 1 == stopped_after else None
        return learn(batch, batch_idx)

    fit.save_checkpoint, learner.training_step = noted, stopping
    with stop.restoring_handlers() if stopped_after is None else pytest.raises(Preempted):
        fit.fit(learner, datamodule=data, ckpt_path=file if file.exists() else None)
    return learner.seen, places


def test_every_checkpoint_has_its_place_in_the_epoch_and_a_stopped_fit_resumes_there(tmp_path):
    whole, places = fitted(tmp_path / "whole")
    assert places == [0, 1, 2, 3, 0, 1, 2, 3, 0]  # four batches in each of two epochs
    first, places = fitted(tmp_path / "cut", stopped_after=6)
    assert places == [0, 1, 2, 3, 0, 1, 2]
    assert first + fitted(tmp_path / "cut")[0] == whole
