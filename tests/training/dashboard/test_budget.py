"""How much of a fit's time the dashboard may take."""

from functools import partial

import pytest
import pytorch_lightning as pl
import torch

from amtml_pl.distill import timing
from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.losses.cross_entropy import CrossEntropy
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.training.dashboard import budget as module
from amtml_pl.training.dashboard import callback
from amtml_pl.training.dashboard.budget import Budget
from amtml_pl.training.dashboard.callback import Dashboard
from amtml_pl.training.dashboard.figures import RunContext
from amtml_pl.training.dashboard.logger import TensorBoard
from amtml_pl.types import Batch
from records import a_run


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_work_that_would_exceed_the_share_is_not_allowed(clock):
    budget = Budget(0.02, lambda: clock.now)
    clock.now = 50.0
    assert budget.allows("figures", 1.0)
    assert not budget.allows("figures", 1.001)
    assert budget.allows("shares", 0.5, part=0.5)
    assert not budget.allows("shares", 0.501, part=0.5)
    with budget.spending("figures"):
        clock.now += 0.5
    assert budget.spent == 0.5
    assert budget.allows("figures", 3.0)  # by now it is known to need half a second
    with budget.spending():
        clock.now += 0.1
    assert not budget.allows("figures", 3.0)


def test_a_share_of_nothing_allows_nothing(clock):
    clock.now = 1e6
    assert not Budget(0.0, lambda: clock.now).allows("figures", 0.1)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"budget": 1.5}, "budget is 1.5; expected a share"), ({"figures_every": 0}, "every is 0; expected 1")],
)
def test_settings_out_of_range_are_refused(tmp_path, setting, message):
    with pytest.raises(UserError, match=message):
        TensorBoard(tmp_path, **setting)


class Network(torch.nn.Module):
    def forward(self, images):
        raise RuntimeError("cannot be followed\nand more")


def test_a_network_that_cannot_be_traced_is_named_in_a_warning_and_the_run_goes_on(tmp_path, caplog):
    student = TappedNetwork(Network(), mean=[0.5] * 3, std=[0.2] * 3)
    logger = TensorBoard(tmp_path)
    logger.begin(0)
    logger.graph(student, 8)
    logger.close()
    [said] = [record.getMessage() for record in caplog.records if "graph" in record.getMessage()]
    assert said == "TensorBoard shows no graph of the student: cannot be followed"


class Fit:
    """A fit of ten epochs of a minute, in which only the clock, and what takes time, is not real."""

    EPOCHS, STEPS, SECONDS = 10, 1000, 60.0

    def __init__(self, clock, monkeypatch, folder, **costs):
        self.clock, self.drawn, self.measured = clock, [], []
        monkeypatch.setattr(timing, "time", clock)
        monkeypatch.setattr(callback, "write_answers", lambda *_: self.takes(costs["figures"], self.drawn))
        monkeypatch.setattr(callback, "write_teaching", lambda *_: None)
        monkeypatch.setattr(callback, "card", lambda *_, **__: "")
        measure = lambda *_: self.takes(costs["shares"], self.measured)  # noqa: E731
        monkeypatch.setattr(callback, "gradient_shares", measure)
        subject = RunContext(a_run(status="interrupted"), ("a", "b"), 8, 1.0, "probabilities", None, {})
        self.dashboard = Dashboard(TensorBoard(folder, figures_every=2), subject)
        settings = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False}
        self.trainer = pl.Trainer(max_epochs=self.EPOCHS, **settings)

    def takes(self, seconds, noted):
        self.clock.now += seconds
        noted.append(self.trainer.current_epoch)
        return {}

    def go(self):
        student = TappedNetwork(torch.nn.Flatten(), mean=[0.5] * 3, std=[0.2] * 3)
        sgd = partial(torch.optim.SGD, lr=1)
        module = DistillModule(student, {"ce": CrossEntropy()}, {"ce": 1.0}, 2, sgd)
        batch = Batch(torch.rand(128, 3, 8, 8), torch.zeros(128).long(), torch.arange(128), 0, "train")
        dashboard, trainer, loop = self.dashboard, self.trainer, self.trainer.fit_loop
        module.spent.started = self.clock.now
        dashboard.on_train_start(trainer, module)
        for epoch in range(self.EPOCHS):
            loop.epoch_progress.current.completed = epoch
            steps = loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
            steps.total.completed = epoch * self.STEPS
            dashboard.on_train_batch_start(trainer, module, batch, 0)
            self.clock.now += self.SECONDS
            dashboard.on_train_epoch_end(trainer, module)
        dashboard.logger.close()
        return self.drawn, self.measured


def test_figures_come_every_second_epoch_once_there_is_time_for_them(clock, monkeypatch, tmp_path):
    """At an epoch's beginning 1.2 s more for each before it, less 0.2 s: at 4 4.8 − 1.0 > 3 + spent."""
    drawn, measured = Fit(clock, monkeypatch, tmp_path, figures=0.5, shares=0.1).go()
    assert drawn == [4, 6, 8]  # of the last one after the fit; without a reserve from 3 on
    assert measured == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_measuring_shares_leaves_a_part_of_the_budget_to_figures(clock, monkeypatch, tmp_path):
    drawn, measured = Fit(clock, monkeypatch, tmp_path, figures=1.0, shares=0.9).go()
    assert (drawn, measured) == ([7], [1, 4, 5, 6, 9])  # each measured only where it fits into 0.7 of it
