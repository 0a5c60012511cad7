"""Sweeps: failures, kills, repetitions, the leaderboard, launchers and searches."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from amtml_pl.config.override_errors import first_value
from amtml_pl.config.paths import config_directory
from amtml_pl.train import main
from amtml_pl.training.sweep.jobs import sweep_context

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent.parent.parent
SMALL = (
    "experiment=digits", "method=ce", "trainer=cpu", "trainer.max_epochs=1", "data.train_size=60",
    "data.val_size=20", "student=resnet8_thin", "logger=[]",
)  # fmt: skip
WITH_TEACHER = (
    "experiment=digits", "method=avg", *SMALL[2:], "teacher=[vgg8_quarter]",
    "teacher.vgg8_quarter.recipe_overrides=['trainer.max_epochs=1','logger=[]']",
)  # fmt: skip


@pytest.fixture
def sweep(tmp_path, shared, monkeypatch, capfd):
    """Run a sweep in this process; return its status and its error output."""

    def run(*words):
        paths = {"data": shared / "data", "outputs": tmp_path / "outputs"}
        typed = [f"paths.{name}={folder}" for name, folder in paths.items()]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["train", "--multirun", *typed, *SMALL, *words])
        try:
            main()
        except SystemExit as stop:
            return stop.code, capfd.readouterr().err
        return 0, capfd.readouterr().err

    return run


@pytest.fixture
def command(tmp_path, shared):
    """Start ``python -m amtml_pl.train --multirun`` in a process."""

    def start(*words, threads=None):
        environment = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
        environment |= {"AMTML_DATA": str(shared / "data"), "AMTML_OUTPUTS": str(tmp_path / "outputs")}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        line = [sys.executable, "-m", "amtml_pl.train", "--multirun", *words]
        with (tmp_path / "output.txt").open("ab") as output:
            return subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=output, stderr=output)

    return start


def rows(tmp_path):
    """Return the rows of the only leaderboard."""
    (leaderboard,) = (tmp_path / "outputs" / "sweeps").glob("*/leaderboard.csv")
    with leaderboard.open(newline="") as lines:
        return list(csv.DictReader(lines))


def statuses(tmp_path):
    return Counter(row["status"] for row in rows(tmp_path))


def records(tmp_path):
    return [json.loads(file.read_text()) for file in (tmp_path / "outputs" / "runs").rglob("run.json")]


def test_neither_a_mistake_nor_an_unexpected_error_ends_the_other_jobs(sweep, tmp_path):
    jobs = ("student.network.depth=9,8,14", "hydra.sweep.subdir='${hydra.job.num}'")
    obstacle = tmp_path / "outputs" / "runs" / "1" / "doctor.json"
    obstacle.mkdir(parents=True)  # where a file is to be written
    status, error = sweep(*jobs)
    assert status == 1
    by_job = {row["job"]: row for row in rows(tmp_path)}
    assert [by_job[number]["status"] for number in "012"] == ["failed", "failed", "completed"]
    assert "(got 9, expected 6n+2" in by_job["0"]["reason"]
    assert "IsADirectoryError" in by_job["1"]["reason"]
    at_the_end = error[error.index("2 of 3 jobs failed") :]
    for job in ("depth=9", "wrong depth (got 9, expected", "depth=8", "IsADir"):
        assert job in at_the_end
    assert "--multirun" in at_the_end.splitlines()[-1]

    finished = tmp_path / "outputs" / "runs" / "2" / "run.json"
    before = finished.stat().st_mtime_ns
    obstacle.rmdir()
    status, error = sweep(*jobs)
    assert status == 2  # what is left is a mistake
    assert "1 of 3 jobs failed" in error
    assert statuses(tmp_path) == {"completed": 2, "failed": 1}
    assert finished.stat().st_mtime_ns == before


def test_the_leaderboard_agrees_with_the_records(sweep, tmp_path):
    status, error = sweep("seed=0,1")
    assert status == 0, error
    by_run = {row["run"]: row for row in rows(tmp_path)}
    for run, row in by_run.items():
        record = json.loads((Path(run) / "run.json").read_text())
        assert all(float(row[name]) == record["metrics"][name] for name in ("val/acc", "test/acc"))
        assert float(row["seconds"]) == pytest.approx(record["timing"]["fit_seconds"], abs=1e-3)
    assert len(by_run) == 2
    assert sweep_context.sweep is None  # a later run of this process is not a job


def test_labels_alone_take_part_in_a_sweep_with_teachers(sweep, tmp_path):
    for words in ((), ("teacher=[resnet8]",)):
        status, error = sweep("seed=0", *words)
        assert status == 0, error
    assert len(records(tmp_path)) == 1


def until(condition, process=None, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, "the sweep has ended too early"
        assert time.monotonic() < end, "it did not come so far"
        time.sleep(0.02)


def reached(tmp_path, **expected):
    """Return True if a leaderboard has at least these numbers of jobs by status."""
    found = [*(tmp_path / "outputs").glob("sweeps/*/leaderboard.csv")]
    return bool(found) and all(statuses(tmp_path)[status] >= n for status, n in expected.items())


def children(process):
    return [int(number) for number in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


def test_the_recorded_command_of_a_job_of_a_prepared_sweep_repeats_this_job_alone(
    sweep, tmp_path, monkeypatch, capfd
):
    (tmp_path / "own" / "sweep").mkdir(parents=True)
    (tmp_path / "own" / "sweep" / "seeds.yaml").write_text(
        "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '3,5'}}}\n"
    )
    status, error = sweep("sweep=seeds", f"hydra.searchpath=[file://{tmp_path}/own]")
    assert status == 0, error
    commands = [shlex.split(record["command"]) for record in records(tmp_path)]
    assert not any(word.startswith("sweep=") for words in commands for word in words)
    assert sorted(word for words in commands for word in words if "seed" in word) == ["seed=3", "seed=5"]
    monkeypatch.setattr(sys, "argv", ["train", *commands[0][3:]])
    main()
    assert capfd.readouterr().out.count("The run is already completed") == 1


def test_a_prepared_sweep_sets_nothing_that_the_command_of_a_job_lacks():
    for file in (TESTS.parent / "conf" / "sweep").glob("*.yaml"):
        about = OmegaConf.load(file)
        assert about.keys() <= {"defaults", "hydra"}, file
        assert all(
            group.startswith("override /hydra/") for each in about.get("defaults", []) for group in each
        )


@needs_proc
def test_a_sweep_of_six_killed_at_the_fourth_and_repeated_completes_each_job_once(command, tmp_path):
    jobs = (*SMALL, "seed=range(3)", "optimizer.lr=0.05,0.1")
    process = command(*jobs, threads=1)
    until(lambda: reached(tmp_path, completed=3, running=1) and children(process.pid), process)
    at_work = children(process.pid)
    process.kill()
    process.wait()
    assert len(at_work) == 1
    until(lambda: not Path(f"/proc/{at_work[0]}").exists(), seconds=10)
    finished = {file: file.stat().st_mtime_ns for file in (tmp_path / "outputs" / "runs").rglob("run.json")}
    finished = {f: t for f, t in finished.items() if json.loads(f.read_text())["status"] == "completed"}
    assert len(finished) == 3

    assert command(*jobs, threads=1).wait() == 0
    assert Counter(record["status"] for record in records(tmp_path)) == {"completed": 6}
    assert len({(r["seed"], r["budget"]["optimizer"]) for r in records(tmp_path)}) == 6
    assert all(file.stat().st_mtime_ns == written for file, written in finished.items())
    assert statuses(tmp_path) == {"completed": 6}
    assert sorted(int(row["job"]) for row in rows(tmp_path)) == list(range(6))


@needs_proc
def test_a_job_whose_process_is_killed_does_not_end_the_sweep(command, tmp_path):
    jobs = (*SMALL, "trainer.max_epochs=300,1", "seed=0")
    process = command(*jobs, threads=1)
    until(lambda: reached(tmp_path, running=1) and children(process.pid), process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    assert process.wait() == 1
    assert statuses(tmp_path) == {"completed": 1, "failed": 1}
    assert "its process was ended by SIGKILL" in (tmp_path / "output.txt").read_text()


@needs_proc
def test_ctrl_c_ends_a_sweep_with_130_and_prints_how_to_resume(command, tmp_path):
    process = command(*SMALL, "trainer.max_epochs=300", "seed=0,1", threads=1)
    until(lambda: any((tmp_path / "outputs").rglob("last.ckpt")), process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    output = (tmp_path / "output.txt").read_text()
    assert "Traceback" not in output
    assert "To resume the interrupted sweep, repeat the command (completed jobs are skipped):" in output
    assert "--multirun experiment=digits method=ce" in output.splitlines()[-1]
    assert statuses(tmp_path) == {"interrupted": 1}
    assert [record["status"] for record in records(tmp_path)] == ["interrupted"]


@needs_proc
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "ray"])
def test_two_jobs_at_once_share_the_teacher_the_cache_and_the_cores(command, tmp_path, launcher):
    if launcher == "ray":
        pytest.importorskip("ray", reason="it takes 260 MB: pip install 'amtml-pl[ray]'")
    assert command(*WITH_TEACHER, "temperature=2,3", f"launcher={launcher}").wait() == 0
    assert statuses(tmp_path) == {"completed": 2}, (tmp_path / "output.txt").read_text()
    made = records(tmp_path)
    assert [record["threads"] for record in made] == [max(1, len(os.sched_getaffinity(0)) // 2)] * 2
    passes = [record["cache"]["teacher_passes"] for record in made]
    assert sorted(passes, key=len) == [{}, {"vgg8_quarter": 1.0}]
    assert len(list((tmp_path / "outputs" / "teachers").rglob("run.json"))) == 1


@needs_proc
def test_a_search_that_is_killed_and_repeated_counts_each_trial_once(command, tmp_path):
    import optuna

    search = (
        *SMALL, "hydra/sweeper=optuna_study", "optimizer.lr=tag(log,interval(0.01,0.1))",
        "student.network.depth=choice(8,14)", "hydra.sweeper.n_trials=4",
    )  # fmt: skip
    process = command(*search, threads=1)
    until(lambda: reached(tmp_path, completed=2, running=1), process)
    process.kill()
    process.wait()
    assert command(*search, threads=1).wait() == 0
    assert statuses(tmp_path) == {"completed": 4}
    assert command(*search, threads=1).wait() == 0
    (database,) = (tmp_path / "outputs" / "sweeps").glob("*/study.db")
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{database}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 4
    assert study.best_value == max(float(row["val/acc"]) for row in rows(tmp_path))


def test_a_search_continues_after_a_failed_trial_and_the_repeated_command_tries_it_again(sweep, tmp_path):
    depth = ("student.network.depth=choice(9)", "seed=0")
    for _ in range(2):
        status, error = sweep("hydra/sweeper=optuna_study", "hydra.sweeper.n_trials=2", *depth)
        assert status == 2
        assert "(got 9, expected 6n+2" in error
    assert statuses(tmp_path) == {"failed": 1}


MISTAKES = {
    "temperatur=1,2": "temperatur",
    "hydra/sweeper=optuna_study seed=0": "The search has no key with several values",
    "hydra/sweeper=optuna_study seed=range(2) data.val_size=0": "A search (sweep=tune) compares its trials "
    "on the validation split, but the run has none (got data.val_size=0",
    "hydra/sweeper=optuna_study data.val_size=0.1,0.2 seed=0": "A search cannot choose data.val_size, which "
    "selects the validation images",
    "launcher=joblib seed=0,1": "package 'hydra_plugins.hydra_joblib_launcher' is not installed.*[joblib]",
    "hydra/sweeper=optuna_study seed=range(3)": "package 'optuna' is not installed.*[optuna]",
    "launcher=slurm seed=0,1": "launcher=slurm needs SLURM (got a machine without srun",
    "launcher=ray seed=0,1": "package 'ray' is not installed.*[ray]",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_in_the_command_itself_starts_no_sweep(sweep, tmp_path, monkeypatch, words):
    for package in re.findall("package '(.+)'", MISTAKES[words]):
        monkeypatch.setitem(sys.modules, package, None)
    status, error = sweep(*words.split())
    assert status == 2
    assert all(text in error for text in MISTAKES[words].split(".*"))
    assert error.count("error:") == 1
    assert "Traceback" not in error
    assert not [*(tmp_path / "outputs").glob("sweeps/*/jobs")]
    assert sweep_context.sweep is None


HOW = ("sweep", "launcher", "hydra/sweeper", "hydra.launcher", "hydra.sweeper")
DOCUMENTED = {
    tuple(word for word in words if word.startswith(HOW)): words
    for file in (TESTS.parent / "docs" / "sweeps.md", *(TESTS.parent / "conf").glob("*/*.yaml"))
    if file.suffix == ".md" or file.parent.name in ("launcher", "sweep")
    for line in re.findall(r"python -m amtml_pl\.train .*", file.read_text())
    for words in [shlex.split(line.partition(" --cfg")[0], comments=True)[3:]]
}


@pytest.mark.parametrize("how", DOCUMENTED, ids=" ".join)
def test_every_documented_sweep_composes_with_its_launcher_and_its_search(how):
    """Compose its first job; test_documentation.py checks the other commands."""
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides([word for word in DOCUMENTED[how] if word != "-m"])
        typed = [word for override in parsed if (word := first_value(override))]
        config = compose("train", typed, return_hydra_config=True)
        searched = (config.hydra.sweeper.get("params") or {}).items()
        search = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in searched])
        compose("train", [*(word for each in search if (word := first_value(each))), *typed])
        for plugin in (config.hydra.launcher, config.hydra.sweeper):
            assert plugin._target_ in Plugins.instance().class_name_to_class
            OmegaConf.resolve(plugin)
