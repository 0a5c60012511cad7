"""Schedules of steps: their rates, and runs that use them."""

import csv
import math

import pytest
import torch
from torch import nn

from amtml_pl.config.build import ObjectSpec, build_object
from amtml_pl.distill.schedules import cosine_with_warmup, schedule_of
from amtml_pl.errors import UserError
from amtml_pl.training.connect import steps_per_epoch
from amtml_pl.training.options import TrainerOptions
from amtml_pl.training.preflight import check_parts
from amtml_pl.training.settings import settings_of
from tiny_runs import CE, assert_bitwise_equal, at_step, failing, weights

pytestmark = pytest.mark.slow

CHOICES = ("cosine_warmup", "one_cycle")


def optimizer_of_two_groups():
    groups = [{"params": [nn.Parameter(torch.zeros(()))], "lr": lr} for lr in (1.0, 0.5)]
    return torch.optim.SGD(groups, momentum=0.9)


def rates(make, steps, per_epoch=1):
    """Return each group's rate in every step."""
    optimizer, found = optimizer_of_two_groups(), []
    schedule, _ = schedule_of(make, optimizer, per_epoch)
    for _ in range(steps):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def of_config(configure, choice, *overrides):
    config = configure("experiment=digits", "method=ce", f"scheduler={choice}", *overrides)
    return build_object(config.scheduler)


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine_in_every_group(configure):
    make = of_config(configure, "cosine_warmup", "trainer.max_epochs=6", "scheduler.warmup_epochs=1.5")
    found = rates(make, 24, per_epoch=4)
    rise = [0.01 + 0.99 * step / 6 for step in range(6)]
    fall = [0.5 + 0.5 * math.cos(math.pi * step / 18) for step in range(18)]
    for (first, second), expected in zip(found, rise + fall, strict=True):
        assert (first, second) == pytest.approx((expected, expected / 2), abs=1e-12)


def test_one_cycle_has_the_rate_of_each_group_as_its_maximum(configure):
    found = rates(of_config(configure, "one_cycle", "trainer.max_epochs=10"), 100, per_epoch=10)
    for position, highest in enumerate((1.0, 0.5)):
        own = [of[position] for of in found]
        assert (own[0], max(own), own[29]) == pytest.approx((highest / 25, highest, highest))
        assert own[-1] == pytest.approx(highest / 25e4)


def test_without_warm_up_it_is_torch_s_cosine():
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    without = rates(lambda optimizer: cosine_with_warmup(optimizer, 5, warmup_epochs=0), 5)
    assert without == rates(lambda optimizer: cosine(optimizer, 5), 5)


@pytest.mark.parametrize("epochs", [5, -1])
def test_a_warm_up_that_leaves_no_step_for_the_cosine_is_refused(epochs):
    with pytest.raises(UserError, match=f"warmup_epochs does not fit the run .got {epochs}.*less than its 5"):
        cosine_with_warmup(optimizer_of_two_groups(), 5, warmup_epochs=epochs)


@pytest.mark.parametrize("epochs", [1, 2, 30])
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_schedule_of_steps_fits_every_optimiser_and_length(configure, choice, optimizer, epochs):
    short = ["scheduler.warmup_epochs=0.5"] if choice == "cosine_warmup" else []
    chosen = (f"optimizer={optimizer}", f"scheduler={choice}", f"trainer.max_epochs={epochs}", *short)
    check_parts(settings_of(configure("experiment=digits", "method=ce", *chosen)))


@pytest.mark.parametrize(
    ("trainer", "steps"),
    [({}, 7), ({"accumulate_grad_batches": 3}, 3), ({"limit_train_batches": 4}, 4),
     ({"limit_train_batches": 0.5}, 3), ({"limit_train_batches": 99}, 7)],
)  # fmt: skip
def test_the_steps_of_an_epoch_are_those_of_lightning(trainer, steps):
    options = TrainerOptions(None, ObjectSpec(trainer), epochs=1, device="cpu", loggers={}, callbacks={})
    assert steps_per_epoch(options, batches=7) == steps


@pytest.mark.parametrize("choice", CHOICES)
def test_a_run_changes_its_rate_after_every_step_and_resumes_to_the_bit(run, monkeypatch, choice):
    job = ("experiment=digits", "method=ce", *CE, f"scheduler={choice}", "optimizer.nesterov=true")
    job += ("doctor=false", *(["scheduler.warmup_epochs=1.5"] if choice == "cosine_warmup" else []))
    _, whole = run(*job, name="whole")
    with whole.metrics_file.open() as lines:
        rows = [float(row["lr"]) for row in csv.DictReader(lines)]
    highest, steps = 0.05, 8
    make = {
        "cosine_warmup": lambda o: cosine_with_warmup(o, 2, 1.5, steps_per_epoch=4),
        "one_cycle": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, [1.0, 0.5], total_steps=8),
    }[choice]
    expected = [highest * of[0] for of in rates(make, steps)]
    assert rows == pytest.approx([expected[3], expected[7]])  # of the last step of each epoch
    with monkeypatch.context() as patched:
        at_step(patched, 6, failing(RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            run(*job, "checkpoint_minutes=0", name="cut")
    _, cut = run(*job, "checkpoint_minutes=0", name="cut")
    assert_bitwise_equal(weights(whole), weights(cut))


def test_a_loop_that_steps_its_optimisers_itself_needs_a_schedule_of_epochs(run):
    with pytest.raises(UserError, match=r"scheduler=cosine_with_warmup changes.*schedule of epochs"):
        run("experiment=digits", "method=dml", *CE, "scheduler=cosine_warmup")
