"""The words of a command line: options and overrides in any order."""

import subprocess
import sys

import pytest

from amtml_pl import UserError, run_experiment
from amtml_pl.config.command_line import options_and_overrides
from amtml_pl.train import main


@pytest.mark.parametrize(
    "words",
    ["-m a=1 --config-dir mine b=2,3", "a=1 -m b=2,3 --config-dir mine", "--config-dir mine a=1 b=2,3 -m"],
)
def test_options_are_found_among_overrides(words):
    options, overrides = options_and_overrides(words.split())
    assert sorted(options) == ["--config-dir", "-m", "mine"]
    assert options[options.index("--config-dir") + 1] == "mine"
    assert overrides == ["a=1", "b=2,3"]


@pytest.mark.slow
def test_an_option_with_an_optional_value_may_be_the_last_word():
    typed = [sys.executable, "-m", "amtml_pl.train", "experiment=digits", "method=ce", "--info"]
    done = subprocess.run(typed, capture_output=True, text=True)  # it changes the logging of its process
    assert done.returncode == 0, done.stderr
    assert "Defaults Tree" in done.stdout + done.stderr


def test_an_option_between_overrides_is_taken(command):
    printed = command(main, "seed=3", "--cfg", "job", "experiment=digits", "method=ce")
    assert "\nseed: 3\n" in printed


def test_mistakes_behind_an_option_are_named(mistake, tmp_path):
    (tmp_path / "mine").mkdir()
    assert "optimzer: unknown key" in mistake("seed=1", "--config-dir", "mine", "optimzer.lr=1")


def test_a_missing_folder_of_configurations_is_the_only_mistake(mistake, tmp_path):
    for name in ("my_conf", "outputs", "zzz"):
        (tmp_path / name).mkdir()
    printed = mistake("experiment=digits", "--config-dir", "my_cnf", "teacher=[mine]")
    assert "--config-dir=my_cnf is not a folder; did you mean 'my_conf'?" in printed
    assert "mine" not in printed
    assert "did you mean" not in mistake("experiment=digits", "--config-dir", str(tmp_path / "photos"))


def test_a_sweep_under_torchrun_is_refused_with_its_own_command(mistake, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    printed = " ".join(mistake("-m", "experiment=digits", "seed=0,1").split())
    assert "(got 2, expected 1). Fix: python -m amtml_pl.train -m experiment=digits seed=0,1" in printed


def test_a_call_takes_options_and_names_the_command_of_a_sweep(tmp_path):
    places = [f"paths.{name}={tmp_path}" for name in ("data", "teachers", "outputs")]
    with pytest.raises(UserError, match="nothing: unknown key"):
        run_experiment("experiment=digits", "--config-dir", str(tmp_path), "nothing=1", *places)
    with pytest.raises(
        UserError, match=r"in a terminal: python -m amtml_pl.train -m experiment=digits seed=0,1"
    ):
        run_experiment("experiment=digits", "seed=0,1")
    with pytest.raises(UserError, match="pass each override as a string of its own"):
        run_experiment("experiment=digits method=ce")
    assert sys.argv[0] != "train"
