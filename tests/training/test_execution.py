"""``execution=auto`` depends on counts and on what the machine has, never on a clock."""

import logging
import re
from functools import partial

import pytest
import torch
from torch import nn

from amtml_pl.distill.loops.mmkd import MMKD
from amtml_pl.distill.step import DistillModule
from amtml_pl.errors import UserError
from amtml_pl.models.taps import TappedNetwork
from amtml_pl.runs.record import Execution
from amtml_pl.training import execution
from amtml_pl.training.execution import (
    choose_execution,
    compiles,
    fused_optimizer,
    layout_obstacle,
    missing_compiler,
)
from amtml_pl.training.settings import settings_of

CIFAR = ("experiment=cifar10_jpeg", "trainer=cpu", "teacher=[]", "loss=[ce]")


@pytest.fixture
def choose(configure):
    """Return a function that chooses the execution of a run over 45,000 images."""

    def made(*overrides, recorded=None, images=45_000, device="cpu"):
        settings = settings_of(configure(*CIFAR, *overrides))
        object.__setattr__(settings.trainer, "device", device)
        return choose_execution(settings, images, recorded)

    return made


@pytest.fixture
def compiler(monkeypatch):
    """Let every device have a compiler, or none."""

    def exists(problem=None):
        monkeypatch.setattr(execution, "missing_compiler", lambda device: problem)

    exists()
    return exists


def chosen(channels_last, compiled, fused):
    return Execution(channels_last=channels_last, compile=compiled, fused=fused)


def test_a_long_run_on_a_cpu_is_compiled_and_a_short_one_is_not(choose, compiler):
    assert choose() == chosen(True, True, True)  # 200 epochs
    assert choose("trainer.max_epochs=1") == chosen(True, False, True)
    assert choose(images=100) == chosen(True, False, True)  # fewer than a batch


def test_eager_switches_everything_off(choose, compiler):
    assert choose("execution=eager") == chosen(False, False, False)
    assert str(choose("execution=eager")) == "eager"
    assert str(choose()) == "channels last, compiled, fused"


@pytest.mark.parametrize("key", ["channels_last", "compile", "fused"])
def test_what_is_named_is_done(choose, compiler, key):
    assert getattr(choose(f"execution.{key}=false"), key) is False
    assert getattr(choose(f"execution.{key}=true", "trainer.max_epochs=1"), key) is True


def test_a_resumed_run_keeps_what_it_began_with_unless_it_is_named(choose, compiler):
    begun = chosen(False, False, False)
    assert choose(recorded=begun) == begun
    assert choose(recorded=chosen(True, True, False), images=10) == chosen(True, True, False)
    assert choose("execution.fused=true", recorded=begun) == chosen(False, False, True)


def test_a_network_that_is_slower_with_channels_last_keeps_its_layout_unless_that_is_named(choose, compiler):
    assert choose("student=vgg19").channels_last is False
    assert choose("student=vgg19", "execution.channels_last=true").channels_last is True


def test_channels_last_on_an_accelerator_is_for_half_precision(choose, compiler):
    assert choose(device="cuda").channels_last is False
    assert choose("trainer.precision=bf16-mixed", device="cuda").channels_last is True
    assert choose("trainer.precision=bf16-mixed", device="mps") == chosen(False, False, False)  # on a Mac


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_gradients_that_a_fused_optimiser_may_unscale_can_be_clipped(choose, compiler, precision):
    words = (f"trainer.precision={precision}", "+trainer.gradient_clip_val=1.0")
    assert choose(words[0], device="cuda").fused is True
    assert choose(*words, device="cuda").fused is False
    for key in ("execution.fused", "optimizer.fused"):
        with pytest.raises(UserError, match=f"{key} is not possible .*cannot clip(.|\n)*Fix: {key}="):
            choose(*words, f"{key}=true", device="cuda")


@pytest.mark.parametrize(
    ("loop", "problem", "text"),
    [
        ("dml", None, "a training step of its own"),
        ("distill", "no C++ compiler is found", r"no C\+\+ compiler"),
    ],
)
def test_a_step_that_cannot_be_compiled_is_eager_and_an_error_where_it_is_named(
    choose, compiler, caplog, loop, problem, text
):
    compiler(problem)
    with caplog.at_level(logging.WARNING):
        assert choose(f"loop={loop}") == chosen(True, False, True)
        assert choose(f"loop={loop}", "trainer.max_epochs=1") == chosen(True, False, True)
    [line] = [record.getMessage() for record in caplog.records]  # where it would have paid
    assert re.search(f"execution.compile=auto is false here: .*{text}", line)
    with pytest.raises(UserError, match=f"execution.compile is not possible .*{text}"):
        choose(f"loop={loop}", "execution.compile=true")


def test_a_loop_with_a_step_of_its_own_is_not_compiled():
    own_step = type("OwnStep", (DistillModule,), {"training_step": lambda self, batch, number: None})
    own_outputs = type("OwnOutputs", (DistillModule,), {"distill_step": lambda self, batch: None})
    named = type("Named", (DistillModule,), {})
    assert [compiles(loop) for loop in (named, own_step, own_outputs, MMKD)] == [True, False, False, False]


class Viewed(nn.Sequential):
    """A network that flattens maps by view, which needs the channels first."""

    def forward(self, images):
        return self[1](self[0](images).view(len(images), -1))


class OwnConvolution(nn.Conv2d):
    """A convolution that cannot be replaced, as it may compute something else."""


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (
            lambda: Viewed(nn.Conv2d(3, 16, 3, stride=8), nn.Linear(16 * 16, 10)),
            "view size is not compatible",
        ),
        (lambda: nn.Sequential(nn.Conv2d(3, 8, 1, stride=2, padding_mode="reflect", padding=1)), "corrupt"),
        (lambda: nn.Sequential(OwnConvolution(8, 8, 1, stride=2)), "corrupt memory"),
    ],
)
def test_a_network_that_cannot_have_its_channels_last_is_found_before_training(network, text):
    student = TappedNetwork(network(), mean=[0.5] * 3, std=[0.25] * 3)
    assert text in layout_obstacle(student, 32)


def test_a_missing_compiler_is_found():
    from torch._inductor import config, cpp_builder

    with config.patch({"cpp.cxx": ("/no/such/compiler",)}):
        cpp_builder.cpp_compiler_search.cache_clear()
        assert missing_compiler("cpu") == "no C++ compiler is found (set CXX, or install g++)"
    cpp_builder.cpp_compiler_search.cache_clear()


def test_only_an_optimiser_that_leaves_the_kernel_open_is_fused():
    parameters = [torch.nn.Parameter(torch.ones(2))]
    for make, fused in (
        (partial(torch.optim.SGD, lr=0.1, fused=None), True),
        (partial(torch.optim.SGD, lr=0.1, fused=False), False),
        (partial(torch.optim.LBFGS, lr=0.1), None),
    ):
        optimizer = fused_optimizer(make, fused=True)(parameters)
        assert optimizer.defaults.get("fused") == fused
    assert fused_optimizer(make, fused=False) is make
