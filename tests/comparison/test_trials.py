"""Trials of a hyperparameter search, which are not part of a study."""

import pytest

from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.runs.sweep_folder import SweepFolder, SweepJob
from study import write_run


@pytest.fixture
def outputs(tmp_path):
    """Return a folder with two trials of a search, and a run of one trial's settings with another seed."""
    search = SweepFolder(tmp_path / "sweeps" / "lr-12345678", "a command", "")
    for number, lr in enumerate((0.1, 0.2)):
        run = tmp_path / "runs" / "digits" / f"trial-{number}"
        write_run(run, "digits", 0, 0.9, typed=f"optimizer.lr={lr}")
        # Where the sweep ran: outputs/ may have been copied to another machine since.
        place = f"/elsewhere/outputs/runs/digits/trial-{number}"
        search.write(SweepJob(number, (f"optimizer.lr={lr}",), place, "a command", "completed"))
    write_run(tmp_path / "runs" / "digits" / "own", "digits", 1, 0.9, typed="optimizer.lr=0.2")
    (search.path / "study.db").touch()
    return tmp_path


def seeds_by_rate(found):
    return {(*run.settings, run.record.seed) for run in found.compared}


def test_a_group_of_trials_alone_is_left_out_with_their_number(outputs):
    found = find_runs(outputs / "runs", "test/acc")
    assert seeds_by_rate(found) == {("optimizer.lr=0.2", 0), ("optimizer.lr=0.2", 1)}
    [out] = found.left_out
    assert out.folder == outputs / "sweeps" / "lr-12345678"
    assert out.reason == "1 trial of a hyperparameter search (trials=true compares trials too)"


def test_trials_are_compared_on_request_or_if_all_runs_are_trials(outputs):
    assert len(find_runs(outputs / "runs", "test/acc", trials=True).compared) == 3
    (outputs / "runs" / "digits" / "own" / "run.json").unlink()
    found = find_runs(outputs / "runs", "test/acc")
    assert len(found.compared) == 2
    assert "hyperparameter" not in str(found.left_out)


def test_jobs_of_another_sweep_are_no_trials(outputs):
    (outputs / "sweeps" / "lr-12345678" / "study.db").unlink()
    assert len(find_runs(outputs / "runs", "test/acc").compared) == 3
