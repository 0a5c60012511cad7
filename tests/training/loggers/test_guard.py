"""A callback's exceptions carry its name, but for a lack of memory."""

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from amtml_pl.errors import UserError
from amtml_pl.training.loggers.guard import guard_callback


class Raising(Callback):
    def __init__(self, error):
        self.error = error

    def on_fit_end(self, trainer, pl_module):
        raise self.error


def guarded(error):
    callback = Raising(error)
    guard_callback(callback, "mine")
    return callback


def test_an_exception_of_a_callback_names_the_callback_and_its_hook():
    with pytest.raises(UserError, match=r"^callbacks.mine raised ValueError in on_fit_end: no room"):
        guarded(ValueError("no room")).on_fit_end(None, None)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory: 9 bytes")]
)
def test_a_lack_of_memory_is_not_blamed_on_the_callback(error):
    with pytest.raises(type(error), match="memory"):
        guarded(error).on_fit_end(None, None)
