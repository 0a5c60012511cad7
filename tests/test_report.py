"""The report command: files, messages and errors."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra

from amtml_pl.comparison.baseline import compare_with
from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.comparison.groups import problems_of
from amtml_pl.comparison.tables import leaderboard
from amtml_pl.errors import UserError
from amtml_pl.report import main, print_leaderboards, publish
from amtml_pl.system.console import console
from sealing import seal_again
from study import write_run, write_study

STUDENT = {"network": "models.CifarResNet", "parameters": 19954}

FILES = ["groups.csv", "report.csv", "report.html", "report.md", "report.tex"]


@pytest.fixture
def report(tmp_path, monkeypatch, capfd):
    """Return a function that runs the command in ``tmp_path``, and returns its two outputs."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["report", *words])
        capfd.readouterr()
        main()
        return capfd.readouterr()

    return run


def written(folder):
    return sorted(file.name for file in folder.iterdir())


def test_a_report_is_written_below_the_runs_or_elsewhere_with_the_same_page(report, tmp_path):
    write_study(tmp_path / "runs", seeds=(0, 1))
    for out in ((), ("out=other",)):  # its own files are not runs
        printed, _ = report("runs=runs", "baseline=ce", *out)
        assert "difference from ce" in printed
        assert "report.html" in printed
    folders = tmp_path / "runs" / "report", tmp_path / "other"
    assert [written(folder) for folder in folders] == [FILES, FILES]
    assert len({(folder / "report.html").read_bytes() for folder in folders}) == 1


def test_runs_of_a_list_or_a_pattern_count_once_and_are_named_below_their_parent(report, tmp_path):
    write_study(tmp_path / "a" / "small", seeds=(0, 1))
    write_study(tmp_path / "b" / "2026", methods=("ce",), seeds=(2,))
    write_run(tmp_path / "b" / "cut", "small", 3, 0.9, status="interrupted")
    for words in ("runs=[b,a/small,a]", "runs=?"):
        warnings = report(words, "baseline=ce").err
        assert "warning: b/cut is left out: interrupted" in warnings
        assert "same settings" not in warnings
        table = (tmp_path / "report" / "report.csv").read_text().splitlines()
        assert len(table) == 1 + 7
    report("runs=[a/small/ce-0,a/small/avg-0]")
    assert len((tmp_path / "a" / "small" / "report" / "report.csv").read_text().splitlines()) == 1 + 2


def test_names_for_a_paper_and_the_real_name_of_the_baseline(report, tmp_path):
    write_study(tmp_path / "runs", seeds=(0, 1))
    write_run(tmp_path / "runs" / "warm", "small", 0, 0.8, typed="method=avg temperature=9")
    names = r"names={avg: Average, amtml: AMTML-KD, avg temperature\=9: Warm average}"
    printed, _ = report("runs=runs", "baseline=avg", names)
    assert "difference from Average" in " ".join(printed.replace("│", " ").replace("┃", " ").split())
    table = (tmp_path / "runs" / "report" / "report.tex").read_text()
    assert "AMTML-KD & 2 &" in table
    assert "Warm average & 1 &" in table
    assert "relative to Average." in table


def test_runs_left_out_and_separate_problems_are_reported(report, tmp_path):
    write_run(tmp_path / "a", "digits_ce", 0, 0.9, digest="a" * 64)
    write_run(tmp_path / "b", "digits_ce", 0, 0.9, digest="b" * 64)
    write_run(tmp_path / "cut", "digits_ce", 1, 0.9, status="interrupted")
    write_run(tmp_path / "later", "digits_ce", 2, 0.9, format=7)
    (tmp_path / "a" / "metrics.csv").write_text("nonsense")
    seal_again(tmp_path / "a")
    output = " ".join(report("runs=.").err.split())
    assert "2 pairs of data set and student" in output
    assert "cut is left out: interrupted" in output
    assert "later is left out: later/run.json has format 7 (expected 6; a newer version" in output
    assert "a/metrics.csv is left out of the curves: the first column is 'nonsense'" in output
    assert "cut</code>: interrupted" in (tmp_path / "report" / "report.html").read_text()
    for name in ("report.md", "report.tex"):
        text = (tmp_path / "report" / name).read_text()
        assert "2 pairs of data set and student" in text
        assert "cut: interrupted" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["runs=nothing"], "is not a folder"),
        (["runs=empty"], "contains no run"),
        (["runs=[empty,file/..]"], "is not a folder (got runs='file/..')"),
        (["runs=[empty,vacant]"], "/empty, {0}/vacant contain no run"),
        (["runs=[]"], "runs=[]: expected a folder, pattern or list"),
        (["runs=runs", "baseline=amtm"], "did you mean 'amtml'"),
        (["runs=runs", "metric=test/accc"], "(got 'test/accc', expected one of test/acc, test/acc_last,"),
        (["runs="], "runs='': expected"),
        (["runs=runs", "baseline="], "baseline= is empty"),
        (["runs=unfinished"], "repeat the training command of a run to resume"),
        (["runs=nan"], "training command of a run with force=true"),
        (["runs=runs", "out=file"], "cannot be written to"),
        (["runs=runs", "bsaeline=ce"], "baseline"),
    ],
)
def test_a_mistake_is_one_message_and_nothing_is_written(tmp_path, command, monkeypatch, words, message):
    write_study(tmp_path / "runs", seeds=(0,))
    write_run(tmp_path / "unfinished" / "cut", "digits_ce", 1, 0.9, status="failed")
    write_run(tmp_path / "nan" / "run", "digits_ce", 1, float("nan"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "vacant").mkdir()
    (tmp_path / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert message.replace("{0}", str(tmp_path)) in " ".join(command(main, *words, status=2).split())
    assert (tmp_path / "file").read_text() == "mine"
    assert not [*tmp_path.rglob("report.*")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_an_output_folder_without_permission_is_one_message():
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o644)
        os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=r"cannot be written to .*Permission denied"):
                publish(Path(folder), {"report.md": "new"})
        finally:
            os.seteuid(0)


def test_if_one_file_cannot_be_written_none_is_replaced(tmp_path):
    (tmp_path / "report.md").write_text("of before")
    (tmp_path / "report.csv").mkdir()
    (tmp_path / ".report.md").write_text("mine")
    with pytest.raises(UserError, match=r"cannot be written to .*report.csv is a folder"):
        publish(tmp_path, {"report.md": "new", "report.csv": "new"})
    assert (tmp_path / "report.md").read_text() == "of before"
    assert (tmp_path / ".report.md").read_text() == "mine"
    assert written(tmp_path) == [".report.md", "report.csv", "report.md"]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_numbers_are_whole_on_a_terminal_of_any_width(tmp_path, capsys, monkeypatch, width):
    write_study(tmp_path, methods=("ce", "avg", "a_rather_long_name_of_a_method"), seeds=(0, 1, 2))
    write_run(tmp_path / "one", "small", 0, 0.7, typed="method=kd", student=STUDENT)
    problems = problems_of(find_runs(tmp_path, "test/acc").compared, "test/acc")
    compare_with(problems, "ce", "test/acc")
    monkeypatch.setattr(console, "_width", width)
    print_leaderboards(problems, "test/acc")
    output = capsys.readouterr().out
    assert max(len(line) for line in output.splitlines() if line[0] in "┏┃┡│└") <= width
    assert "…" not in output
    [problem] = problems
    for group in problem.groups:
        assert f" {group.estimate('test/acc')} " in output
        assert f" {group.against_baseline.difference()} " in output or group.is_baseline
    assert "has the best mean test/acc" in output
    absent = {name for name in leaderboard(problem, "test/acc").columns if name not in output}
    assert absent == set()
    assert ("do not fit this terminal: " in output) is (width < 200)


@pytest.mark.parametrize("closed", ["", ">&-"])
def test_a_report_is_written_in_any_locale_and_with_a_closed_output(tmp_path, closed):
    for number, name in enumerate(("größe", "länge")):
        write_run(tmp_path / "runs" / name, "small", 0, 0.8 + number / 10, study=name)
        (tmp_path / "runs" / name / "config.yaml").write_text(f"by: {name}\n", encoding="utf-8")
        seal_again(tmp_path / "runs" / name)
    command = f"'{sys.executable}' -m amtml_pl.report runs=runs {closed}"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["/bin/bash", "-c", command]
    done = subprocess.run(words, cwd=tmp_path, env=plain, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    text = (tmp_path / "runs" / "report" / "report.md").read_text(encoding="utf-8")
    assert "by größe" in text
    assert "by länge" in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_output_is_one_message(tmp_path):
    write_study(tmp_path / "runs", seeds=(0, 1))
    command = f"'{sys.executable}' -m amtml_pl.report runs=runs >/dev/full"
    words = ["/bin/bash", "-c", command]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: The output of the command cannot be written")
    assert "Traceback" not in done.stderr


def test_the_command_needs_no_torch():
    code = "import sys, amtml_pl.report; sys.exit('torch' in sys.modules or 'scipy.stats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_control_characters_of_names_do_not_reach_the_terminal(report, tmp_path):
    write_run(tmp_path / "named", "\x1b[31mred\ud800", 0, 0.9)
    write_run(tmp_path / "cut\x1b[2J", "digits_ce", 0, 0.9, status="failed")
    out, err = report("runs=.")
    assert "\x1b" not in out + err
    assert "[31mred" in out
    assert "cut [2J is left out: failed" in err
