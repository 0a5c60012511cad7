"""A run that the tests of a file break again and again in one folder."""

import hashlib

import numpy as np
import pytest
from run_contents import contents

from amtml_pl.runs.folder import RunFolder
from tiny_runs import WATCHED, trained

ROOTS = ("data", "teachers", "cache", "outputs")
# Two epochs of four steps. Without a budget, TensorBoard gets nothing that depends on seconds.
JOB = ("experiment=digits_amtml", *WATCHED)


@pytest.fixture
def place(shared, request):
    """The folder of all runs of a test file; what they end with contains its name."""
    return shared / request.module.__name__


@pytest.fixture
def train(configure, place, monkeypatch):
    """Train the job in a folder below the place, and return the contents of that folder."""
    monkeypatch.setattr("amtml_pl.training.dashboard.logger.pixels", digest_of_figure)

    def go(*overrides, name="run"):
        folder = RunFolder(place / name)
        config = configure(*JOB, *(f"paths.{root}={place / root}" for root in ROOTS), *overrides)
        repeat = "python -m amtml_pl.train experiment=x"
        trained(config, folder, experiment="digits_amtml", command=repeat)
        return contents(folder.path)

    return go


def digest_of_figure(figure):
    """Return a few pixels that depend on the numbers of a figure."""
    shown = [image.get_array().tobytes() for axes in figure.axes for image in axes.images]
    shown += [repr(bar.get_bbox()).encode() for axes in figure.axes for bar in axes.patches]
    return np.frombuffer(hashlib.sha384(b"".join(shown)).digest(), np.uint8).reshape(4, 4, 3)
