"""Schedules that do not fit the length of their run, compared with torch's rates."""

import pytest
import torch
import yaml
from torch.optim import lr_scheduler

from amtml_pl.config.schedules import schedule_problems, schedule_warnings


def rates(kind, arguments, epochs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, found = getattr(lr_scheduler, kind)(optimizer, **arguments), []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        ({"milestones": [100, 150]}, "does not fit 60 epochs: the run never reaches 100, 150."),
        ({"step_size": 60}, "does not fit 60 epochs: the run ends before the second period."),
        ({"T_0": 61}, "does not fit 60 epochs: the run ends before the second period."),
        ({"T_max": 200}, "does not fit 60 epochs: the run ends before the schedule."),
        ({"T_max": 50}, "does not fit 60 epochs: the schedule ends before the run."),
        ({"total_steps": 61}, "does not fit 60 epochs: the run ends before the schedule."),
        ({"epochs": 61}, "does not fit 60 epochs: the run ends before the schedule."),
        (
            {"start_factor": 0.1, "total_iters": 61},
            "does not fit 60 epochs: the run ends before the schedule.",
        ),
    ],
)
def test_a_schedule_behind_the_last_epoch_has_a_warning_with_an_override_that_fits(arguments, output):
    (warning,) = schedule_warnings(arguments, 60)
    assert output in warning
    key, _, value = warning.rpartition("scheduler.")[2].rstrip(".").rstrip("'").partition("=")
    assert not [*schedule_warnings({**arguments, key: yaml.safe_load(value)}, 60)]


def test_each_schedule_of_a_sequence_is_looked_at():
    sequence = {"schedulers": [{"factor": 0.1, "total_iters": 5}, {"T_max": 200}], "milestones": [5]}
    (warning,) = schedule_warnings(sequence, 60)
    assert warning.startswith("scheduler.schedulers.1.T_max=200 does")


@pytest.mark.parametrize("epochs", [4, 5, 60])
def test_suggested_milestones_rise_within_the_run(epochs):
    (warning,) = schedule_warnings({"milestones": [1, 150, 180, 210]}, epochs)
    suggested = yaml.safe_load(warning.rpartition("=")[2].rstrip(".").rstrip("'"))
    assert suggested == sorted(set(suggested))
    assert 1 <= suggested[0] <= suggested[-1] < epochs


def test_a_schedule_that_ends_before_its_run_is_refused():
    with pytest.raises(ValueError, match="step"):  # of torch, in the last epochs of the run
        rates("OneCycleLR", {"max_lr": 1.0, "total_steps": 3}, epochs=5)
    (problem,) = schedule_problems({"max_lr": 1.0, "total_steps": 3}, 5)
    assert problem.startswith("scheduler.total_steps=3: the schedule ends before the run (expected 5")
    assert not [*schedule_problems({"max_lr": 1.0, "total_steps": 5}, 5)]


def test_a_number_of_steps_that_the_run_counts_itself_is_refused():
    (problem,) = schedule_problems({"epochs": 5, "steps_per_epoch": 100}, 5)
    assert problem == "scheduler.steps_per_epoch=100: the run counts them (expected null)"


@pytest.mark.parametrize(
    "arguments",
    [
        {"milestones": [30, 59]}, {"step_size": 59}, {"T_0": 60}, {"T_max": 60}, {"total_steps": 60},
        {"total_iters": 60}, {"factor": 1.0, "total_iters": 100}, {"epochs": 60}, {"gamma": 0.9},
    ],
)  # fmt: skip
def test_a_schedule_that_fits_has_no_warning(arguments):
    assert not [*schedule_warnings(arguments, 60)]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [("MultiStepLR", {"milestones": [6]}), ("MultiStepLR", {"milestones": [5]}), ("StepLR", {"step_size": 6}),
     ("StepLR", {"step_size": 5})],
)  # fmt: skip
def test_the_first_epoch_in_which_a_step_is_seen_is_that_of_torch(kind, arguments):
    seen = len(set(rates(kind, arguments, epochs=6))) > 1
    assert seen is not bool([*schedule_warnings(arguments, 6)])


def test_a_run_too_short_for_any_step_is_pointed_to_a_constant_rate():
    (warning,) = schedule_warnings({"milestones": [100]}, 1)
    assert warning.endswith("1 epoch: the run never reaches 100. Use scheduler=constant.")
