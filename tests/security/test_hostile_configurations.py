"""Configurations that were made to do harm, or make no sense: nothing is called before it is checked."""

import os
import subprocess
import sys

import pytest
from canary import outcome
from hypothesis import example, given
from hypothesis import strategies as st
from nested import FUZZ, nested, places, with_value
from omegaconf import OmegaConf

from amtml_pl.config.build import build_object
from amtml_pl.config.checks import check
from amtml_pl.errors import UserError

HARMFUL = ("os.system", "torch.hub.load", "amtml_pl.data.datasets.download.shutil.rmtree")
JSON = nested(*HARMFUL, "${seed}", "${", "${oc.env:HOME}", "???", "../..", "\0", "9" * 50, keys=["_target_"])


@pytest.fixture
def configuration(configure):
    """A sound one, as plain values with its interpolations."""
    return OmegaConf.to_container(
        configure("experiment=digits", "method=ce", "student=resnet8_thin"), resolve=False
    )


def nodes(tree):
    """The places of all nodes that become objects."""
    return [path for path in places(tree) if path and path[-1] == "_target_"]


@pytest.mark.parametrize("name", HARMFUL)
def test_harm_in_any_node_is_refused_by_the_check_and_by_the_building(configuration, canary, name):
    for path in nodes(configuration):
        config = OmegaConf.create(with_value(configuration, path, name))
        with pytest.raises(UserError, match=name.rpartition(".")[0]):
            check(config)
        with pytest.raises(UserError, match=r"_target_="):
            build_object(OmegaConf.select(config, path[0]))


def test_harm_that_an_argument_hides_is_refused(configuration, canary):
    harm = {"_target_": "os.system", "command": f"touch {canary}"}
    roots = {path[0] for path in nodes(configuration) if len(path) == 2}
    inner = [path for path in places(configuration) if len(path) > 1 and path[0] in roots]
    assert len(inner) > 20
    for number, path in enumerate(inner[::4]):
        hidden = (harm, [harm], {"a": [{"b": harm}]})[number % 3]
        config = OmegaConf.create(with_value(configuration, path, hidden))
        with pytest.raises(UserError):
            check(config)
        with pytest.raises(UserError, match="_target_="):
            build_object(config[path[0]])


@FUZZ
@given(data=st.data(), value=JSON)
@example(data=None, value={"_target_": "os.system", "command": "touch canary"})
def test_anything_in_the_place_of_a_value_is_checked_without_a_crash(configuration, data, value):
    inner = [place for place in places(configuration) if place]
    path = ("student",) if data is None else data.draw(st.sampled_from(inner))
    try:
        config = OmegaConf.create(with_value(configuration, path, value))
    except Exception:  # omegaconf refuses it, before anything of ours sees it
        return
    outcome(check, config)


YAML = {
    "python object": "!!python/object/apply:os.system ['touch CANARY']",
    "harmful student": "student:\n  _target_: os.system\n  command: touch CANARY",
    "hidden in a source": "dataset:\n  source:\n    mirrors: {_target_: os.system, command: touch CANARY}",
    "nested": "a: " + "[" * 20_000,
    "nothing closed": "student: {_target_: [",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", YAML)
def test_an_experiment_of_a_stranger_ends_with_a_message_and_calls_nothing(hostile, out, canary, kind):
    """As a user would run it: a folder of somebody's YAML, and the whole process."""
    (hostile / "experiment").mkdir()
    text = YAML[kind].replace("CANARY", str(canary))
    head = "# @package _global_\ndefaults:\n  - digits\n  - override /student: resnet8_thin\n"
    (hostile / "experiment" / "theirs.yaml").write_text(head + text + "\n")
    command = [
        sys.executable, "-m", "amtml_pl.train", "--config-dir", str(hostile), "experiment=theirs",
        "prepare=false", f"paths.outputs={out}", f"paths.data={out}/data", "trainer=cpu",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr
