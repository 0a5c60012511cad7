"""What a person sees of a run: on a real terminal, and where nobody watches."""

import os
import pty
import re
import shlex
import subprocess
import sys

import pytest
import torch

from amtml_pl.metrics import EpochMeans
from amtml_pl.summary import next_commands
from tiny_runs import CE, TINY

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def typed(shared, tmp_path, *overrides):
    """The command of a run in a process of its own."""
    places = {"data": shared / "data", "teachers": shared / "teachers", "outputs": tmp_path / "outputs"}
    paths = [f"paths.{name}={folder}" for name, folder in places.items()]
    return [sys.executable, "-m", "amtml_pl.train", *overrides, *paths]


def on_a_terminal(command, **environment):
    """What a command writes to a pseudo-terminal of 160 columns, and its status."""
    ours, theirs = pty.openpty()
    unset = {name: value for name, value in os.environ.items() if name not in ("CI", "TERM", "COLUMNS")}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
        env={**unset, "TERM": "xterm-256color", "COLUMNS": "160", **environment},
    )  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:  # how Linux says that nobody has the other end any more
        pass
    os.close(ours)
    return ESCAPES.sub("", said.decode()).replace("\r", "\n"), process.wait()


@pytest.mark.slow
def test_a_terminal_shows_the_plan_the_fit_on_one_line_and_the_next_commands(shared, tmp_path):
    said, status = on_a_terminal(typed(shared, tmp_path, "experiment=digits_amtml", *TINY))
    assert status == 0, said
    assert said.index("Plan of digits_amtml") < said.index("epoch 1/2")
    line = r"epoch 2/2 \S+ loss \d+\.\d{4}  val/acc 0\.\d{4}  [\d,]+ images/s \d:\d\d:\d\d cache 2/2 views"
    assert re.search(line, said), said
    assert "epoch 1/2: val/acc" not in said
    *_, summary = said.partition("student, best epoch")
    for module in ("evaluate", "export", "predict", "report"):
        assert f"python -m amtml_pl.{module} " in summary
    assert "tensorboard --logdir" in summary
    for chatter in ("weights_only", "Restoring states", "max_epochs=2` reached", "GPU available"):
        assert chatter not in said


@pytest.mark.slow
@pytest.mark.parametrize("watched", [True, False], ids=["a terminal of CI", "a pipe"])
def test_where_nobody_watches_there_is_a_line_for_each_epoch_and_nothing_moves(shared, tmp_path, watched):
    command = typed(shared, tmp_path, "experiment=digits_ce", *CE)
    if watched:
        said, status = on_a_terminal(command, CI="true")
    else:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said, status = done.stdout + done.stderr, done.returncode
        assert "\x1b" not in said
    assert status == 0, said
    assert re.findall(r"epoch (\d)/2: val/acc 0\.\d{4}", said) == ["1", "2"]
    assert "images/s 0:" not in said


def test_the_next_commands_can_be_pasted_whatever_the_folder_is_called(tmp_path):
    folder = tmp_path / "it's a run"
    for command, _ in next_commands(folder):
        words = shlex.split(command)
        assert any(str(folder) in word or word.endswith(f"={folder.parent}") for word in words), command


def test_the_mean_of_an_epoch_so_far_can_be_looked_at_without_ending_it():
    means = EpochMeans()
    assert means.so_far("total") is None
    means.add({"ce": torch.tensor(1.0), "total": torch.tensor(2.0)}, 3)
    means.add({"ce": torch.tensor(1.0), "total": torch.tensor(6.0)}, 1)
    assert means.so_far("total") == pytest.approx(3.0)
    assert means.take()["total"] == pytest.approx(3.0)
