"""Which runs are compared, and what is said of the others."""

import json

import pytest
from filelock import FileLock

from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.errors import UserError
from study import write_run


def left_out(folder, metric="test/acc"):
    return {out.folder.name: out.reason for out in find_runs(folder, metric).left_out}


@pytest.mark.parametrize(
    "damage",
    [
        "", "{", "[]", '{"format": 1}', '{"format": 1, "status": "completed"}',
        '{"format": 1, "status": "completed", "dataset": [], "experiment": "x", "command": "c"}',
    ],
)  # fmt: skip
def test_a_damaged_record_is_named_and_passed_over(tmp_path, damage):
    write_run(tmp_path / "broken", "digits_ce", 0, 0.9)
    (tmp_path / "broken" / "run.json").write_text(damage)
    with pytest.raises(UserError, match=r"No completed run lies below .*:\n  - broken: "):
        find_runs(tmp_path, "test/acc")
    write_run(tmp_path / "whole", "digits_ce", 1, 0.9)
    found = find_runs(tmp_path, "test/acc")
    assert [run.seed for run in found.compared] == [1]
    assert list(left_out(tmp_path)) == ["broken"]


def test_unfinished_runs_are_listed_by_what_became_of_them(tmp_path):
    write_run(tmp_path / "whole", "digits_ce", 0, 0.9)
    write_run(tmp_path / "cut", "digits_ce", 1, 0.9, status="interrupted")
    write_run(tmp_path / "fell", "digits_ce", 2, 0.9, status="failed")
    for name in ("lost", "busy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
        (tmp_path / name / ".lock").touch()
    with FileLock(tmp_path / "busy" / ".lock"):
        assert left_out(tmp_path) == {
            "busy": "still running",
            "cut": "interrupted",
            "fell": "failed",
            "lost": "ended without saying why",
        }


def test_where_nothing_is_whole_all_that_was_found_is_listed(tmp_path):
    write_run(tmp_path / "cut", "digits_ce", 0, 0.9, status="interrupted")
    with pytest.raises(UserError, match=r"No completed run lies below .*:\n  - cut: interrupted"):
        find_runs(tmp_path, "test/acc")


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="No run lies below"):
        find_runs(tmp_path, "test/acc")


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        find_runs(tmp_path / "nothing", "test/acc")


def test_a_run_of_a_later_format_is_refused_by_its_name(tmp_path):
    write_run(tmp_path / "now", "digits_ce", 0, 0.9)
    write_run(tmp_path / "later", "digits_ce", 1, 0.9, format=2)
    assert "has format 2; expected 1" in left_out(tmp_path)["later"]


def test_a_run_of_before_formats_is_of_the_first(tmp_path):
    write_run(tmp_path / "old", "digits_ce", 0, 0.9)
    file = tmp_path / "old" / "run.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "format"}))
    assert len(find_runs(tmp_path, "test/acc").compared) == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.7e308])
def test_a_run_whose_number_is_none_is_left_out(tmp_path, value):
    write_run(tmp_path / "whole", "digits_ce", 0, 0.9)
    write_run(tmp_path / "odd", "digits_ce", 1, value)
    assert left_out(tmp_path) == {"odd": f"test/acc is {value}"}


def test_a_metric_that_no_run_has_is_answered_with_those_that_there_are(tmp_path):
    write_run(tmp_path / "whole", "digits_ce", 0, 0.9)
    with pytest.raises(
        UserError, match=r"No completed run below .* has 'test/accuracy'; they have .*"
    ) as refused:
        find_runs(tmp_path, "test/accuracy")
    assert refused.value.fix == "metric=test/acc"


def test_a_run_that_lacks_the_metric_is_left_out_where_another_has_it(tmp_path):
    write_run(tmp_path / "whole", "digits_ce", 0, 0.9)
    write_run(tmp_path / "other", "digits_ce", 1, 0.9, metrics={"val/acc": 0.9})
    assert left_out(tmp_path) == {"other": "has no test/acc; it has val/acc"}


def test_a_copy_of_a_run_is_no_second_seed(tmp_path):
    for name in ("a", "b"):
        write_run(tmp_path / name, "digits_ce", 0, 0.9, study="s")
    assert left_out(tmp_path) == {"b": "repeats seed 0 of the same study in a"}


@pytest.mark.parametrize(
    "damage",
    [
        {"timing": {"fit_seconds": float("inf")}},
        {"timing": {"fit_seconds": -1.7e308}},
        {"timing": {}},
        {"cache": {"teacher_passes": {"vgg8": float("nan")}}},
        {"temperature": float("nan")},
        {"loss": {"kd": 10**400}},
    ],
)
def test_a_number_that_no_figure_can_show_leaves_its_run_out(tmp_path, damage):
    write_run(tmp_path / "whole", "digits_ce", 0, 0.9)
    write_run(tmp_path / "odd", "digits_ce", 1, 0.9, **damage)
    assert list(left_out(tmp_path)) == ["odd"]
