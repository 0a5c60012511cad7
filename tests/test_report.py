"""The command that compares runs: what it writes, what it says, and what it refuses."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from amtml_pl.comparison.baseline import compare_with
from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.comparison.groups import problems_of
from amtml_pl.comparison.tables import columns
from amtml_pl.errors import UserError
from amtml_pl.report import main, publish, show
from amtml_pl.system.console import console
from sealing import seal_again
from study import write_run, write_study

STUDENT = {"network": "models.CifarResNet", "parameters": 19954}

FILES = ["groups.csv", "report.csv", "report.html", "report.md", "report.tex"]


def report(*words, cwd):
    command = [sys.executable, "-m", "amtml_pl.report", *words]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def written(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_report_is_written_below_the_runs_and_the_leaderboard_is_printed(tmp_path):
    write_study(tmp_path / "runs", seeds=(0, 1))
    done = report("runs=runs", "baseline=ce", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert written(tmp_path / "runs" / "report") == FILES
    assert "difference from ce" in done.stdout
    assert "report.html" in done.stdout
    again = report("runs=runs", cwd=tmp_path)  # its own files are no runs
    assert again.returncode == 0, again.stderr


def test_runs_that_are_left_out_and_problems_that_are_kept_apart_are_said(tmp_path):
    write_run(tmp_path / "a", "digits_ce", 0, 0.9, digest="a" * 64)
    write_run(tmp_path / "b", "digits_ce", 0, 0.9, digest="b" * 64)
    write_run(tmp_path / "cut", "digits_ce", 1, 0.9, status="interrupted")
    write_run(tmp_path / "later", "digits_ce", 2, 0.9, format=4)
    (tmp_path / "a" / "metrics.csv").write_text("nonsense")
    seal_again(tmp_path / "a")
    done = report("runs=.", cwd=tmp_path)
    assert done.returncode == 0
    said = " ".join(done.stderr.split())
    assert "2 problems (data set and student) are kept apart" in said
    assert "cut is left out: interrupted" in said
    assert "later is left out: later/run.json has format 4; expected 3; a later version" in said
    assert "a/metrics.csv is left out of the curves: its first column is 'nonsense'" in said
    assert "cut</code>: interrupted" in (tmp_path / "report" / "report.html").read_text()
    for name in ("report.md", "report.tex"):
        text = (tmp_path / "report" / name).read_text()
        assert "2 problems (data set and student) are kept apart" in text
        assert "cut: interrupted" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs=nothing"], "is not a folder"),
        (["runs=empty"], "No run lies below"),
        (["runs=runs", "baseline=amtm"], "did you mean 'amtml'"),
        (["runs=runs", "metric=test/accc"], "has 'test/accc'; they have test/acc, test/acc_last, val/acc,"),
        (["runs="], "runs= names no folder"),
        (["runs=runs", "baseline="], "baseline= names no group"),
        (["runs=unfinished"], "which run.json in its folder has: it resumes it"),
        (["runs=nan"], "with force=true: it starts over"),
        (["runs=runs", "out=file"], "cannot be written to"),
        (["runs=runs", "bsaeline=ce"], "baseline"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(tmp_path, command, monkeypatch, words, said):
    write_study(tmp_path / "runs", seeds=(0,))
    write_run(tmp_path / "unfinished" / "cut", "digits_ce", 1, 0.9, status="failed")
    write_run(tmp_path / "nan" / "run", "digits_ce", 1, float("nan"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert said in " ".join(command(main, *words, status=2).split())
    assert (tmp_path / "file").read_text() == "mine"
    assert not [*tmp_path.rglob("report.*")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_a_folder_in_which_nothing_may_be_looked_at_is_one_message():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o644)
        os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=r"cannot be written to .*Permission denied"):
                publish(Path(folder), {"report.md": "new"})
        finally:
            os.seteuid(0)


def test_where_one_file_cannot_be_written_none_is_replaced(tmp_path):
    (tmp_path / "report.md").write_text("of before")
    (tmp_path / "report.csv").mkdir()
    (tmp_path / ".report.md").write_text("mine")
    with pytest.raises(UserError, match=r"cannot be written to .*report.csv is a folder"):
        publish(tmp_path, {"report.md": "new", "report.csv": "new"})
    assert (tmp_path / "report.md").read_text() == "of before"
    assert (tmp_path / ".report.md").read_text() == "mine"
    assert written(tmp_path) == [".report.md", "report.csv", "report.md"]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_on_any_terminal_every_number_that_is_shown_can_be_read(tmp_path, capsys, monkeypatch, width):
    write_study(tmp_path, methods=("ce", "avg", "a_rather_long_name_of_a_method"), seeds=(0, 1, 2))
    write_run(tmp_path / "one", "small", 0, 0.7, told="method=kd", student=STUDENT)
    problems = problems_of(find_runs(tmp_path, "test/acc").compared, "test/acc")
    compare_with(problems, "ce", "test/acc")
    monkeypatch.setattr(console, "_width", width)
    show(problems, "test/acc")
    said = capsys.readouterr().out
    assert max(len(line) for line in said.splitlines() if line[0] in "┏┃┡│└") <= width
    assert "…" not in said
    [problem] = problems
    for group in problem.groups:
        assert f" {group.estimate('test/acc')} " in said
        assert f" {group.against_baseline.difference()} " in said or group.is_baseline
    absent = {name for name in columns(problem, "test/acc") if name not in said}
    assert absent == set()
    assert ("too wide for here: " in said) is (width < 200)


@pytest.mark.parametrize("closed", ["", ">&-"])
def test_a_report_is_written_in_any_locale_and_with_a_closed_output(tmp_path, closed):
    write_study(tmp_path / "runs", seeds=(0, 1))
    command = f"'{sys.executable}' -m amtml_pl.report runs=runs {closed}"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        ["/bin/bash", "-c", command], cwd=tmp_path, env=plain, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert closed or re.search(rb" 0\.\d{4} \? 0\.\d{4} ", done.stdout)
    assert "±" in (tmp_path / "runs" / "report" / "report.md").read_text(encoding="utf-8")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_output_is_one_message(tmp_path):
    write_study(tmp_path / "runs", seeds=(0, 1))
    command = f"'{sys.executable}' -m amtml_pl.report runs=runs >/dev/full"
    done = subprocess.run(
        ["/bin/bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: The output of the command cannot be written")
    assert "Traceback" not in done.stderr


def test_names_beyond_ascii_tell_groups_apart_in_a_locale_without_them(tmp_path):
    for number, name in enumerate(("größe", "länge")):
        write_run(tmp_path / "runs" / name, "small", 0, 0.8 + number / 10, study=name)
        (tmp_path / "runs" / name / "config.yaml").write_text(f"by: {name}\n", encoding="utf-8")
        seal_again(tmp_path / "runs" / name)
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "amtml_pl.report", "runs=runs"],
        cwd=tmp_path, env=plain, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = (tmp_path / "runs" / "report" / "report.md").read_text(encoding="utf-8")
    assert "by größe" in said
    assert "by länge" in said


def test_the_command_needs_no_torch(tmp_path):
    code = "import sys, amtml_pl.report; sys.exit('torch' in sys.modules or 'scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_page_is_the_same_for_the_same_runs_wherever_it_is_written(tmp_path):
    write_study(tmp_path / "runs", seeds=(0, 1))
    pages = []
    for name in ("one", "other"):
        assert report("runs=runs", f"out={name}", cwd=tmp_path).returncode == 0
        assert written(tmp_path / name) == FILES
        pages.append((tmp_path / name / "report.html").read_bytes())
        time.sleep(0.01)
    assert pages[0] == pages[1]
    assert not (tmp_path / "runs" / "report").exists()


def test_names_of_records_and_folders_do_not_command_the_terminal(tmp_path):
    write_run(tmp_path / "named", "\x1b[31mred\ud800", 0, 0.9)
    write_run(tmp_path / "cut\x1b[2J", "digits_ce", 0, 0.9, status="failed")
    done = report("runs=.", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "[31mred" in done.stdout
    assert "cut [2J is left out: failed" in done.stderr
