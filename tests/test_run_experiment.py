"""`amtml_pl.run_experiment` trains what the command trains, and leaves the process as it was."""

import logging
import os
import signal
import sys
import threading
import warnings

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

import amtml_pl
from amtml_pl import Interrupted, UserError, run_experiment
from amtml_pl.config.paths import config_directory
from amtml_pl.runs.folder import RunFolder
from amtml_pl.train import main
from tiny_runs import CE, at_step

pytestmark = pytest.mark.slow

LABELS = ("experiment=digits", "method=ce", *CE)


@pytest.fixture
def places(shared, tmp_path):
    GlobalHydra.instance().clear()
    roots = {"data": shared / "data", "teachers": shared / "teachers", "outputs": tmp_path / "outputs"}
    return [f"paths.{name}={folder}" for name, folder in roots.items()]


def test_the_function_finds_the_run_that_the_command_has_trained(command, places, capfd):
    command(main, *LABELS, "seed=1", *places)
    run = run_experiment(*LABELS, "seed=1", *places)
    assert "The run is already completed" in capfd.readouterr().out
    assert run.record.seed == 1
    assert run.record.command.startswith("python -m amtml_pl.train experiment=digits method=ce trainer=cpu")


def test_calls_with_several_overrides_train_one_after_the_other(places):
    first, second = (run_experiment(*LABELS, f"seed={seed}", *places) for seed in (0, 1))
    assert first.path != second.path
    assert [run.record.metrics["test/acc"] >= 0 for run in (first, second)] == [True, True]


def test_what_a_method_does_not_use_is_named_and_changes_no_run(places, capfd):
    run = run_experiment(*LABELS, *places)
    again = run_experiment(*LABELS, "teacher=[resnet8]", "coef.kd=2", *places)
    output = capfd.readouterr().out
    assert again.path == run.path
    assert "method=ce has no teachers: resnet8 ignored." in output
    assert "warning: coef.kd=2 is ignored, as kd is not selected (selected: ['ce'])" in output


def state():
    """Return what Hydra and a command change for the whole process."""
    loggers = [logging.getLogger(name).level for name in ("", "pytorch_lightning", "lightning_fabric")]
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    return (
        sys.argv[:], dict(os.environ).get("HYDRA_FULL_ERROR"), logging.root.handlers[:], loggers, handlers,
        threading.excepthook, warnings.filters[:], GlobalHydra.instance().hydra, HydraConfig.initialized(),
    )  # fmt: skip


@pytest.mark.parametrize("words", [(), ("nothing=1",), ("trainer.max_epochs=0",), ("--help",)], ids=str)
def test_the_process_is_as_before(places, words):
    before = state()
    try:
        run_experiment(*LABELS, *places, *words)
    except UserError:
        assert words
    assert state() == before


def test_random_states_and_the_algorithms_of_torch_are_as_before(places):
    def numbers():  # those of Python are drawn by the type checks of these tests, too
        return np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    for is_deterministic in (False, True):
        torch.use_deterministic_algorithms(is_deterministic)
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        expected = numbers()
        np.random.seed(1)  # noqa: NPY002
        torch.manual_seed(1)
        run_experiment(*LABELS, f"seed={3 + is_deterministic}", *places)
        assert numbers() == expected
        assert torch.are_deterministic_algorithms_enabled() is is_deterministic
    torch.use_deterministic_algorithms(False)


def test_a_hydra_that_the_caller_has_initialised_stays(places):
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        run_experiment(*LABELS, *places)
        assert compose("train").seed == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["studnet=resnet8"], r"overrides have 1 mistake:\n  - studnet: .* mean 'student'\? \(argument\)"),
        (["student=resnet80"], "unknown choice; did you mean 'resnet8'"),
        (["trainer.max_epochs=0"], r"max_epochs=0: expected a whole number, 1 or more \(argument\)"),
        (["data.val_size=5000"], "val_size"),
        (["seed=0,1"], "several values need a sweep"),
        (["seed=0,1", "-m"], r"trains one run .got a sweep[^$]*Fix: python -m amtml_pl.train -m experiment="),
        (["sweep=methods"], r"trains one run .got a sweep[^$]*Fix: python -m amtml_pl.train --multirun"),
        (["trainer.devices=2"], r"one process .got trainer.devices=2[^$]*python -m amtml_pl.train"),
        (["--cfg=job"], "begin no run"),
    ],
    ids=str,
)  # fmt: skip
def test_a_mistake_is_one_exception_and_nothing_is_printed(places, capfd, words, message):
    with pytest.raises(UserError, match=message):
        run_experiment(*LABELS, *places, *words)
    assert capfd.readouterr().err == ""


def test_another_thread_is_refused(places):
    refused = []

    def attempt():
        try:
            run_experiment(*LABELS, *places)
        except UserError as error:
            refused.append(error.what)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert refused == ["A run needs the main thread of Python (got another thread)."]


def test_a_process_of_several_is_refused(places, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"got 2 processes, expected 1.*\n.*-m amtml_pl.train experiment="):
        run_experiment(*LABELS, *places)


def test_an_interrupted_call_is_resumed_by_the_same_call_without_force(places, monkeypatch, capfd):
    with monkeypatch.context() as context:
        at_step(context, 2, lambda _: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted, match=r"Repeat it to resume.*Leave out force\."):
            run_experiment(*LABELS, "data.batch_size=20", "force=true", *places)
    assert capfd.readouterr().err == ""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = run_experiment(*LABELS, "data.batch_size=20", *places)
    assert "Resuming from" in capfd.readouterr().out
    assert RunFolder(run.path).completed() is not None


def test_a_termination_signal_reaches_the_callers_handler(places, monkeypatch):
    received = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    at_step(monkeypatch, 2, lambda _: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted):
        run_experiment(*LABELS, *places)
    assert received == [signal.SIGTERM]


def test_the_package_offers_its_names_for_completion():
    assert {"load_run", "run_experiment", "UserError"} <= set(dir(amtml_pl))
