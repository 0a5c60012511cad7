"""Malicious or senseless configurations: nothing is called before it is checked."""

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

HARMFUL = ("os.system", "amtml_pl.system.download.shutil.rmtree")
JSON = nested(*HARMFUL, "${seed}", "${", "${oc.env:HOME}", "???", "../..", "\0", "9" * 50, keys=["_target_"])


@pytest.fixture
def configuration(configure):
    """Return a valid configuration as plain values, with interpolations as written."""
    config = configure("experiment=digits", "method=ce", "student=resnet8_thin")
    return OmegaConf.to_container(config, resolve=False)


def test_a_harmful_name_is_rejected_in_any_node(configuration, canary):
    nodes = [path for path in places(configuration) if path and path[-1] == "_target_"]
    for number, path in enumerate(nodes):
        name = HARMFUL[number % len(HARMFUL)]
        config = OmegaConf.create(with_value(configuration, path, name))
        with pytest.raises(UserError, match=name.rpartition(".")[0]):
            check(config)
        with pytest.raises(UserError, match=r"_target_="):
            build_object(OmegaConf.select(config, path[0]))


@FUZZ
@given(data=st.data(), value=JSON)
@example(data=None, value={"_target_": "os.system", "command": "touch canary"})
def test_any_value_in_a_configuration_is_checked_without_a_crash(configuration, data, value):
    inner = [place for place in places(configuration) if place]
    path = ("student",) if data is None else data.draw(st.sampled_from(inner))
    try:
        config = OmegaConf.create(with_value(configuration, path, value))
    except Exception:  # rejected by omegaconf
        return
    outcome(check, config)


YAML = {
    "python object": "!!python/object/apply:os.system ['touch CANARY']",
    "hidden in a source": "dataset:\n  source:\n    mirrors: {_target_: os.system, command: touch CANARY}",
    "nested": "a: " + "[" * 20_000,
    "nothing closed": "student: {_target_: [",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", YAML)
def test_the_command_rejects_a_malicious_experiment(hostile, out, canary, kind):
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
