"""Runs that are compared, and reasons for leaving others out."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.errors import UserError
from study import write_run, write_study


def left_out(folder, metric="test/acc"):
    return {out.folder.name: out.reason for out in find_runs(folder, metric).left_out}


@pytest.fixture
def folder(tmp_path):
    """Return a folder with one valid run."""
    write_run(tmp_path / "whole", "digits_ce", 0, 0.9)
    return tmp_path


@pytest.mark.parametrize("damage", ["{", '{"format": 6, "status": "completed", "dataset": []}'])
def test_a_damaged_record_is_left_out_with_the_reason(tmp_path, damage):
    write_run(tmp_path / "broken", "digits_ce", 0, 0.9)
    (tmp_path / "broken" / "run.json").write_text(damage)
    with pytest.raises(UserError, match=r"No completed run exists below .*:\n  - broken: "):
        find_runs(tmp_path, "test/acc")
    write_run(tmp_path / "whole", "digits_ce", 1, 0.9)
    found = find_runs(tmp_path, "test/acc")
    assert [run.record.seed for run in found.compared] == [1]
    assert list(left_out(tmp_path)) == ["broken"]


def test_unfinished_runs_are_listed_with_their_state(folder):
    write_run(folder / "cut", "digits_ce", 1, 0.9, status="interrupted")
    write_run(folder / "fell", "digits_ce", 2, 0.9, status="failed")
    for name in ("lost", "busy"):
        (folder / name).mkdir()
        (folder / name / "config.yaml").touch()
        (folder / name / ".lock").touch()
    with FileLock(folder / "busy" / ".lock"):
        assert left_out(folder) == {
            "busy": "still running", "cut": "interrupted", "fell": "failed",
            "lost": "ended before run.json was written",
        }  # fmt: skip


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 7}, "has format 7 (expected 6"),
        ({"metrics": {"test/acc": NAN}}, "test/acc is not a usable number (got nan)"),
        ({"metrics": {"test/acc": 1.7e308}}, "test/acc is not a usable number (got 1.7e+308)"),
        ({"timing": {"fit_seconds": INF}}, "fit_seconds"),
        ({"timing": {"fit_seconds": -1.7e308}}, "fit_seconds"),
        ({"cache": {"teacher_passes": {"vgg8": NAN}}}, "vgg8 is not a usable number (got nan)"),
        ({"temperature": NAN}, "temperature"),
        ({"loss": {"kd": 10**400}}, "kd is not a usable number (got inf)"),
    ],
)
def test_a_run_of_a_later_format_or_without_a_number_for_a_figure_is_left_out(folder, changes, reason):
    write_run(folder / "odd", "digits_ce", 1, 0.9, **changes)
    [(name, message)] = left_out(folder).items()
    assert name == "odd"
    assert reason in message


def test_a_record_that_was_changed_is_named(folder):
    write_run(folder / "changed", "digits_ce", 1, 0.81)
    file = folder / "changed" / "run.json"
    file.write_text(file.read_text().replace("0.81", "0.91"))
    assert "is damaged: the digest does not match the other fields" in left_out(folder)["changed"]


@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv", "weights_by_class.csv"])
def test_a_run_whose_table_was_changed_is_named(tmp_path, name):
    write_study(tmp_path, methods=("avg",), seeds=(0, 1))
    with (tmp_path / "avg-1" / name).open("a") as file:
        file.write("\n")
    [message] = left_out(tmp_path).values()
    assert message.startswith(f"The file {name} in {tmp_path}/avg-1 changed after the run (got SHA-256 ")


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones(folder):
    with pytest.raises(UserError, match=r"has the metric \(got 'test/accuracy', expected one of") as found:
        find_runs(folder, "test/accuracy")
    assert found.value.fix == "pass metric=test/acc"


def test_a_run_that_lacks_the_metric_is_left_out_where_another_has_it(folder):
    write_run(folder / "other", "digits_ce", 1, 0.9, metrics={"test/loss": 0.1})
    [reason] = left_out(folder, "test/loss").values()
    assert (
        reason == "lacks the metric test/loss (its metrics: val/acc, val/acc_last, test/acc, test/acc_last)"
    )


def test_a_copy_of_a_run_is_left_out(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, "digits_ce", 0, 0.9, study="s")
    assert left_out(tmp_path) == {"b": "has the same settings and seed (0) as a"}


@contextmanager
def unprivileged():
    """Drop the rights of root inside; do nothing for other users."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def shared():
    """Return a folder of runs that every user may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        write_run(Path(folder) / "whole", "digits_ce", 0, 0.9)
        yield Path(folder)
        for place in Path(folder).iterdir():
            place.chmod(0o755)


@pytest.mark.parametrize(
    ("of_root", "own", "reason"),
    [(0o700, 0o000, "cannot be read: Permission denied"),
     (0o644, 0o644, "secret/run.json cannot be read: Permission denied.")],
)  # fmt: skip
def test_a_folder_without_read_permission_is_named(shared, of_root, own, reason):
    write_run(shared / "secret", "digits_ce", 1, 0.9)
    (shared / "secret").chmod(own if os.geteuid() else of_root)
    with unprivileged():
        reasons = left_out(shared)
    assert list(reasons) == ["secret"]
    assert reasons["secret"].endswith(reason)


def test_unreadable_runs_are_fixed_by_read_access(shared):
    (shared / "whole").chmod(0o700 if os.geteuid() == 0 else 0)
    with (
        unprivileged(),
        pytest.raises(UserError, match=r"- whole: cannot be read: Permission") as refused,
    ):
        find_runs(shared, "test/acc")
    assert "for read access" in refused.value.fix


def test_a_run_with_an_unreadable_lock_may_still_be_running(shared):
    write_run(shared / "going", "digits_ce", 1, 0.9, status="interrupted")
    (shared / "going" / ".lock").touch(mode=0o444)
    with unprivileged():
        assert left_out(shared)["going"] == "interrupted, or still running (its lock cannot be opened)"


def test_a_run_that_may_still_be_running_is_not_repeated(shared):
    (shared / "whole" / "run.json").unlink()
    (shared / "whole" / ".lock").touch(mode=0o444)
    with unprivileged(), pytest.raises(UserError, match="may still be running") as refused:
        find_runs(shared, "test/acc")
    assert refused.value.fix == "wait until a run has ended, then repeat this command"


def test_runs_behind_links_are_found_once_each_and_circles_end(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path / "elsewhere" / str(seed), "digits_ce", seed, 0.9)
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "one").symlink_to(tmp_path / "elsewhere" / "0")
    (runs / "again").symlink_to(tmp_path / "elsewhere" / "0")
    (runs / "all").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "0" / "back").symlink_to(tmp_path)
    found = find_runs(runs, "test/acc")
    assert sorted(run.record.seed for run in found.compared) == [0, 1]
    assert found.left_out == []
