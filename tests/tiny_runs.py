"""Runs of seconds: few images, small networks, one epoch for each teacher; without figures unless watched."""

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from amtml_pl.config.checks import check
from amtml_pl.distill.module import StudentModule
from amtml_pl.distill.step import DistillModule
from amtml_pl.models.cifar_resnet import CifarResNet
from amtml_pl.training.connect import connect
from amtml_pl.training.pipeline import execute, prepare
from amtml_pl.training.plan import plan
from amtml_pl.training.settings import settings_of
from amtml_pl.training.stages import RunRequest

WATCHED = (
    "trainer=cpu", "trainer.max_epochs=2", "data.train_size=100", "data.val_size=60", "data.batch_size=32",
    "student=resnet8_thin", "teacher=[vgg8_quarter,resnet8]",
    "teacher.vgg8_quarter.recipe_overrides=['trainer.max_epochs=1','logger=[]']",
    "teacher.resnet8.recipe_overrides=['trainer.max_epochs=1','logger=[]']",
)  # fmt: skip
WATCHED_CE = (*WATCHED[:5], "student=resnet8_thin")
TINY, CE = ((*job, "logger=[]") for job in (WATCHED, WATCHED_CE))


def request(config, folder, experiment="digits", command="the command"):
    """Return the request for a run, after the checks of its configuration."""
    check(config)
    return RunRequest(settings_of(config), folder, experiment, command)


def trained(config, folder, **asked):
    """Execute a run and return its record."""
    return execute(request(config, folder, **asked))


def ready(config, folder):
    """Return a run before its first step."""
    return connect(prepare(plan(request(config, folder))))


def at_step(monkeypatch, number, happens):
    """Call a function in the given step, from 0, of a student but not of its teachers."""
    count = StudentModule.update_metrics

    def counted(self, *arguments):
        if self.global_step == number and "teachers" not in Path(self.trainer.default_root_dir).parts:
            happens(self)
        count(self, *arguments)

    monkeypatch.setattr(StudentModule, "update_metrics", counted)


def broken_from_step_5(monkeypatch):
    """Make the gradients of the term kd NaN from a run's sixth step on."""
    from amtml_pl.losses.kd import SoftTargetLoss

    forward, steps = SoftTargetLoss.forward, []

    def broken(self, step):
        steps.append(step)
        value = forward(self, step)
        if len(steps) > 5 and value.requires_grad:
            value.register_hook(lambda gradient: gradient * math.nan)
        return value

    monkeypatch.setattr(SoftTargetLoss, "forward", broken)


def failing(error):
    """Return a function that raises an error, for `at_step`."""

    def happens(_):
        raise error

    return happens


def weights(folder):
    return load_file(folder.weights_file)


def assert_bitwise_equal(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), f"{name} differs"


def same_weights_each_time(**arguments):
    """Return a network whose constructor sets its weights, as of a pretrained one."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return CifarResNet(**arguments)


def features_only(**arguments):
    """Return such a network without its classifier: its output is the features (B, 64)."""
    network = same_weights_each_time(**arguments)
    network.fc = nn.Identity()
    return network


class OwnStep(DistillModule):
    """A user's loop that leaves everything to `DistillModule`."""
