"""What the TAB key completes in bash, and the words that Hydra's own completion does not know."""

import os
import subprocess
import sys

import pytest

from amtml_pl.__main__ import COMMANDS
from amtml_pl.config.completion import completions

LINES = {
    "amtml tra": ["train"],
    "amtml-train temper": ["temperature="],
    "amtml train data.mi": ["data.mixup="],
    "amtml-train method=amtml_pu": ["method=amtml_published"],
    "amtml-train experiment=digits_amtml loss.k": ["loss.kd."],
    "amtml-train -m method=avg,ofa": ["method=avg,ofa"],
    "amtml-train teacher=[resnet8,wrn_28": ["teacher=[resnet8,wrn_28_4"],
    "amtml-train 'teacher=[resnet8,wrn_28": ["'teacher=[resnet8,wrn_28_4"],
    "amtml-train 'teacher=[resnet8]' optimizer.l": ["optimizer.lr="],
    "amtml-train teacher.resnet8.head=": ["teacher.resnet8.head=linear", "teacher.resnet8.head=none"],
    "amtml-train +execution.fused=a": ["+execution.fused=auto"],
    "/env/bin/amtml-cache action=v": ["action=verify"],
    "amtml-evaluate latency=": ["latency=false", "latency=true"],
    "amtml-evaluate dataset=tiny": ["dataset=tiny_imagenet"],
    "amtml info st": ["students"],
    "amtml-train method=nothing": [],
    "amtml-train optimizer.lr=0.1=0 temper": [],
    "amtml nothing me": [],
    "amtml 'open": [],
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_completed(line):
    assert completions(line, COMMANDS) == LINES[line]


def test_a_choice_is_offered_once_in_a_list():
    offered = completions("amtml-train teacher=[resnet8,resnet8", COMMANDS)
    assert "teacher=[resnet8,resnet8_thin" in offered
    assert "teacher=[resnet8,resnet8" not in offered


def test_hydras_own_completion_works_for_a_single_choice(tmp_path):
    """Of the installed scripts: ``amtml-train --shell-completion install=bash``."""
    typed = [sys.executable, "-m", "amtml_pl.train", "--shell-completion", "query=bash"]
    environment = {**os.environ, "COMP_LINE": "amtml-train teacher=cifar10_resnet20_"}
    done = subprocess.run(typed, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "teacher=cifar10_resnet20_akamaster\n"


@pytest.fixture
def bash(tmp_path):
    """Return a function that gives what bash completes for a line and its last part, ``$2``."""
    program = tmp_path / "amtml"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m amtml_pl \"$@\"\n")
    program.chmod(0o755)

    def typed(line, part):
        variables = f'COMP_LINE="{line}" COMP_POINT={len(line)}'
        shown = 'printf "%s\\n" "${COMPREPLY[@]}"'
        text = f'eval "$({program} completion bash)"; {variables}; _amtml {program}-train "{part}"; {shown}'
        return subprocess.check_output(["/bin/bash", "-euc", text], text=True).split()

    return typed


@pytest.mark.parametrize(
    ("line", "part", "offered"),
    [
        ("amtml-train method=amtml_pu", "amtml_pu", ["amtml_published"]),
        ("amtml-train 'teacher=[wrn_28", "teacher=[wrn_28", ["teacher=[wrn_28_4"]),
        ("amtml-train temper", "temper", ["temperature="]),
        ("amtml-train nothing=x", "x", []),
    ],
)
def test_bash_replaces_what_follows_its_last_word_break(bash, line, part, offered):
    assert bash(line, part) == offered
