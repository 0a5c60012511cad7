"""How much of a fit's time the dashboard may take."""

import pytest

from amtml_pl.dashboard import budget as module
from amtml_pl.dashboard.budget import Budget
from amtml_pl.dashboard.logger import TensorBoard
from amtml_pl.errors import UserError


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
    [
        ({"budget": 1.5}, "budget is 1.5; expected a share"),
        ({"figures_every": 0}, "figures_every is 0; expected 1"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, setting, message):
    with pytest.raises(UserError, match=message):
        TensorBoard(tmp_path, **setting)
