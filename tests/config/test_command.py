"""The keys of a command, taken from what Hydra has composed."""

import pytest
from hydra import compose
from hydra.core.hydra_config import HydraConfig

from amtml_pl.config.command import CommandJob
from amtml_pl.config.command_keys import CACHE_COMMAND
from amtml_pl.errors import UserError
from amtml_pl.training.sweep.jobs import SweepCallback


@pytest.fixture
def job(configure):  # which keeps Hydra initialised
    return lambda command, *words: CommandJob(command, compose(command, overrides=[*words]))


def test_a_key_of_a_command_may_refer_to_one_of_the_run(job):
    assert job("cache", "rows=${data.batch_size}").take(CACHE_COMMAND)["rows"] == 128
    evaluate = job("evaluate", "dataset=digits", "out='${dataset.name}.json'")
    assert evaluate.values(without="dataset")["out"] == "digits.json"


def test_taken_keys_leave_the_configuration_of_a_run(job):
    cache = job("cache")
    assert cache.take(CACHE_COMMAND) == {"action": "info", "rows": 256, "splits": ["train"]}
    assert {"action", "rows", "splits"}.isdisjoint(cache.config)


def test_a_key_that_refers_to_nothing_is_named(job):
    with pytest.raises(UserError, match=r"rows cannot be resolved: Interpolation key 'nothing' not found"):
        job("cache", "rows=${nothing}").take(CACHE_COMMAND)


def test_the_printed_commands_continue_runs_that_were_forced_to_start_again(configure, monkeypatch):
    words = ["seed=3", "force=true", "resume=never"]
    config = compose("train", overrides=words, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", config)
    assert CommandJob("train", config).typed() == "python -m amtml_pl.train seed=3"
    assert CommandJob("train", config).words() == words  # of the other processes of this run
    assert SweepCallback().sweep_folder(config).repeat == "python -m amtml_pl.train --multirun seed=3"
