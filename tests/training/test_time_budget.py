"""Epochs and views of a time: views share it with the epochs, and take half of it at most."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amtml_pl.training.time_budget import epochs_and_views

costs = st.floats(0.01, 1000)


@pytest.mark.parametrize(
    ("seconds", "epoch", "view", "expected"),
    [
        (100, 6.0, 4.0, (10, 10)),  # fast teachers: each epoch has its own view
        (100, 2.5, 10.0, (20, 5)),  # slow teachers: half of the time for views, which the epochs use in turn
        (1000, 1.0, 10.0, (60, 60)),  # no more epochs than 60, and no more views than epochs
        (100, 0.1, 2.0, (60, 47)),  # the time that 60 epochs leave is for views
        (100, 10.0, 0.0, (10, 10)),  # no teachers
        (10, 50.0, 50.0, (2, 1)),  # the least, which takes longer
        (-5, 1.0, 1.0, (2, 1)),
    ],
)
def test_a_time_is_divided_between_epochs_and_views(seconds, epoch, view, expected):
    assert epochs_and_views(seconds, epoch=epoch, view=view) == expected


@given(seconds=st.floats(-10, 1e5), epoch=costs, view=costs)
def test_more_than_the_least_fits_into_the_time(seconds, epoch, view):
    epochs, views = epochs_and_views(seconds, epoch=epoch, view=view)
    assert 1 <= views <= epochs <= 60
    assert epochs >= 2
    if epochs > 2 and views > 1:
        assert epochs * epoch + views * view <= seconds * (1 + 1e-9)
