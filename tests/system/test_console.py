"""The output of a run: on a terminal, and in a log."""

import io
import os
import pty
import re
import shlex
import subprocess
import sys

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser

from amtml_pl.distill.metrics import EpochMeans
from amtml_pl.results.evaluation.tables import print_networks
from amtml_pl.runs.evaluation import Evaluation
from amtml_pl.runs.record import FILES, METRICS
from amtml_pl.system.console import Terminal
from amtml_pl.training.plan_table import PlanStep, show_plan
from amtml_pl.training.progress import FitProgress
from amtml_pl.training.summary import next_commands, show_summary
from records import TEACHER, a_run
from tiny_runs import TINY

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def typed(shared, tmp_path, *overrides):
    """Return the command of a run in another process."""
    places = {"data": shared / "data", "teachers": shared / "teachers", "outputs": tmp_path / "outputs"}
    paths = [f"paths.{name}={folder}" for name, folder in places.items()]
    return [sys.executable, "-m", "amtml_pl.train", *overrides, *paths]


def on_a_terminal(command, **environment):
    """Return a command's output on a pseudo-terminal of 160 columns, and its status."""
    ours, theirs = pty.openpty()
    unset = {name: value for name, value in os.environ.items() if name not in ("CI", "TERM", "COLUMNS")}
    process = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
        env={**unset, "TERM": "xterm-256color", "COLUMNS": "160", **environment},
    )  # fmt: skip
    os.close(theirs)
    output = b""
    try:
        while piece := os.read(ours, 65536):
            output += piece
    except OSError:  # Linux's end of file
        pass
    os.close(ours)
    return ESCAPES.sub("", output.decode()).replace("\r", "\n"), process.wait()


@pytest.mark.slow
def test_a_terminal_shows_the_plan_the_fit_on_one_line_and_the_next_commands(shared, tmp_path):
    output, status = on_a_terminal(typed(shared, tmp_path, "experiment=digits_amtml", *TINY))
    assert status == 0, output
    assert output.index("Plan of digits_amtml") < output.index("epoch 1/2")
    line = r"epoch 2/2 \S+ loss \d+\.\d{4}  val/acc 0\.\d{4}  [\d,]+ img/s \d:\d\d:\d\d cached views 2/2"
    assert re.search(line, output), output
    assert "epoch 1/2: val/acc" not in output
    *_, summary = output.partition("student, best epoch")
    for module in ("evaluate", "export", "predict", "report"):
        assert f"python -m amtml_pl.{module} " in summary
    assert "tensorboard" not in summary  # which this run has not written for
    for chatter in ("weights_only", "Restoring states", "max_epochs=2` reached", "GPU available"):
        assert chatter not in output


@pytest.mark.slow
def test_a_log_has_a_line_for_each_epoch_and_no_bar(shared, tmp_path):
    command = typed(shared, tmp_path, "experiment=digits_amtml", *TINY, f"paths.cache={tmp_path}/cold")
    output, status = on_a_terminal(command, CI="true")
    assert status == 0, output
    assert re.findall(r"epoch (\d)/2: val/acc 0\.\d{4}", output) == ["1", "2"]
    assert output.count(" images/s.") == 6  # two teachers, two views and the validation images
    assert not re.search(r"\d:\d\d:\d\d|-:--:--|checksums of the cache", output)  # the time left, of all bars


WARNS = """
import logging
from hydra import compose, initialize_config_dir
from hydra.core.utils import configure_log
from amtml_pl.config.paths import config_directory
from amtml_pl.training.progress import FitProgress

with initialize_config_dir(str(config_directory()), version_base="1.3"):
    configure_log(compose("train", return_hydra_config=True).hydra.job_logging)
bars = FitProgress().bars
bars.add_task("1/2", total=2, completed=1, measured="loss 1.2345", teachers="no teachers")
with bars:
    bars.refresh()
    logging.getLogger("amtml_pl.distill.module").warning("epoch 1/2: [the] adapter has collapsed")
"""


@pytest.mark.slow
def test_a_warning_during_the_fit_is_on_a_separate_line():
    output, status = on_a_terminal([sys.executable, "-c", WARNS])
    assert status == 0, output
    assert "\nepoch 1/2: [the] adapter has collapsed\n" in output
    assert "loss 1.2345" in output.partition("collapsed")[2]


@pytest.mark.parametrize(("width", "has_bar"), [(80, False), (109, False), (110, True), (160, True)])
def test_the_line_of_a_fit_has_all_its_numbers_on_a_narrow_terminal(width, has_bar):
    screen = io.StringIO()
    console = Terminal(file=screen, width=width, force_terminal=True, highlight=False)
    bars = FitProgress(console).bars
    measured = "loss 12.3456  val/acc 0.9123  24,345 img/s"  # as `look` puts it
    bars.add_task("120/240", total=24000, completed=1200, measured=measured, teachers="cache 120/162")
    console.print(bars.get_renderable())
    [line] = ESCAPES.sub("", screen.getvalue()).splitlines()
    assert line.startswith("epoch 120/240")
    assert f"{measured} -:--:-- cache 120/162" in line
    assert ("━" in line) is has_bar


def test_folders_with_brackets_are_printed_as_they_are(tmp_path, capsys):
    """Rich would take the brackets for markup, and the next commands would name another folder."""
    folder = tmp_path / "B[bold]x"
    accuracies = [f"{split}/{metric}" for split in ("val", "test") for metric in METRICS]
    accuracies += ["teacher/big[blue]/val/acc", "teacher/big[blue]/test/acc"]
    made = {"metrics": dict.fromkeys(accuracies, 0.5), "files": dict.fromkeys(FILES, "")}
    record = a_run(experiment="try[red]", teachers={"big[blue]": TEACHER}, **made)
    show_summary(record, folder)
    show_plan([PlanStep("packed [/x] data", "to write to d[/y]", missing=True)], "Plan of try[/z]")
    found = Evaluation.model_construct(split="test", metrics={"test/acc": 0.5})
    print_networks(found, "try[/w] (seed 0)", ("big[/v]",))
    output = capsys.readouterr().out
    for name in ("packed [/x] data", "to write to d[/y]", "Plan of try[/z]", "try[/w] (seed 0)"):
        assert name in output
    assert f"The run folder is {folder}\n" in output
    for command, _ in next_commands(record, folder):
        assert f"  {command}  # " in output
    assert "try[red] (seed 0)" in output
    assert "teacher big[blue]" in output


def test_the_summary_has_the_number_of_processes_that_trained(tmp_path, capsys):
    accuracies = [f"{split}/{metric}" for split in ("val", "test") for metric in METRICS]
    made = {"metrics": dict.fromkeys(accuracies, 0.5), "files": dict.fromkeys(FILES, "")}
    show_summary(a_run(**made), tmp_path)
    assert "Trained in" in capsys.readouterr().out
    show_summary(a_run(**made, processes=2), tmp_path)
    assert "Trained by 2 processes in" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name",
    ["it's a run", "My Runs (copy), b", "x [1]", "a=b", "~tmp", "50%", "{a:b}$HOME", "ends\\"],
)
def test_the_next_commands_can_be_pasted_for_every_name_of_a_folder(tmp_path, name):
    folder = tmp_path / name / "run"
    folder.mkdir(parents=True)
    (folder / "events.out.tfevents.1").touch()
    watch, *commands = [command for command, _ in next_commands(a_run(status="interrupted"), folder)]
    assert shlex.split(watch) == ["tensorboard", "--logdir", str(folder)]
    parse = OverridesParser.create().parse_override
    assert len(commands) == 4
    for command in commands:
        _, _, module, *words = shlex.split(command)
        named = parse(words[0])
        assert (named.get_key_element(), named.value()) == {
            "amtml_pl.evaluate": ("run", str(folder)),
            "amtml_pl.export": ("run", str(folder)),
            "amtml_pl.predict": ("model", str(folder)),
            "amtml_pl.report": ("runs", str(folder.parent)),
        }[module]
        for word in words[1:]:
            parse(word)


def test_the_next_commands_name_only_what_the_run_has(tmp_path):
    alone = next_commands(a_run(status="interrupted"), tmp_path)
    distilled = next_commands(a_run(status="interrupted", teachers={"a": TEACHER}), tmp_path)
    assert "tensorboard" not in str(alone)
    assert alone[0][1] == "accuracy, calibration"
    assert distilled[0][1] == "accuracy, calibration, agreement with its teachers"
    (tmp_path / "events.out.tfevents.1").touch()
    assert next_commands(a_run(status="interrupted"), tmp_path)[0][0].startswith("tensorboard --logdir ")


def test_the_mean_of_an_epoch_so_far_can_be_read_without_ending_it():
    means = EpochMeans()
    assert means.so_far().get("total") is None
    means.add({"ce": torch.tensor(1.0), "total": torch.tensor(2.0)}, 3)
    means.add({"ce": torch.tensor(1.0), "total": torch.tensor(6.0)}, 1)
    assert means.so_far().get("total") == pytest.approx(3.0)
    assert means.take()["total"] == pytest.approx(3.0)
