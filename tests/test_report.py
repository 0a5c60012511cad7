"""The table of completed runs."""

import json

import pytest

from amtml_pl.errors import UserError
from amtml_pl.report import comma_separated, completed_records, leaderboard, markdown


def write_run(folder, experiment, seed, accuracy, *, status="completed", told="", digest="d" * 64, **more):
    folder.mkdir(parents=True)
    record = {
        "format": 1, "status": status, "experiment": experiment, "seed": seed,
        "command": f"python -m amtml_pl.train experiment={experiment} seed={seed} {told}".strip(),
        "dataset": {"name": "digits", "digest": digest}, "budget": {"epochs": 8},
        "metrics": {"val/acc": accuracy, "test/acc": accuracy, "test/acc_last": accuracy},
        "timing": {"fit_seconds": 60.0}, **more,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(record))


def test_seeds_are_one_row_with_mean_and_deviation_and_the_best_row_comes_first(tmp_path):
    for seed, accuracy in enumerate((0.90, 0.92, 0.94)):
        write_run(tmp_path / f"avg{seed}", "digits_avg", seed, accuracy)
    write_run(tmp_path / "amtml", "digits_amtml", 0, 0.95)
    write_run(tmp_path / "hot", "digits_avg", 0, 0.5, told="temperature=9")
    rows = leaderboard(completed_records(tmp_path))
    assert [(row.experiment, row.settings, len(row.records)) for row in rows] == [
        ("digits_amtml", "", 1), ("digits_avg", "", 3), ("digits_avg", "temperature=9", 1),
    ]  # fmt: skip
    assert rows[1].cells()[5] == "0.9200 ± 0.0200"
    assert rows[0].cells()[5] == "0.9500"
    assert len(comma_separated(rows).splitlines()) == 6
    assert (
        markdown(rows).splitlines()[2].startswith("| digits (dddddddd) | digits_amtml |  | 1 | 8 | 0.9500 |")
    )


def test_runs_on_other_pixels_are_never_averaged(tmp_path):
    write_run(tmp_path / "a", "digits_ce", 0, 0.9, digest="a" * 64)
    write_run(tmp_path / "b", "digits_ce", 1, 0.9, digest="b" * 64)
    assert len(leaderboard(completed_records(tmp_path))) == 2


def test_runs_of_one_study_are_one_row_however_their_commands_were_typed(tmp_path):
    write_run(tmp_path / "a", "digits_kd", 0, 0.9, told="temperature=4 data.views=2", study="s")
    write_run(tmp_path / "b", "digits_kd", 1, 0.9, told="data.views=2 temperature=4.0", study="s")
    write_run(tmp_path / "c", "digits_kd", 2, 0.9, told="temperature=4 data.views=2", study="another")
    rows = leaderboard(completed_records(tmp_path))
    assert sorted(len(row.records) for row in rows) == [1, 2]
    assert {row.settings for row in rows} == {"temperature=4 data.views=2"}


def test_settings_are_what_was_studied_and_not_where_or_how_it_ran(tmp_path):
    told = (
        "--multirun paths.data='/a folder' hydra.run.dir=x hydra/launcher=joblib +hydra.verbose=true "
        "prepare=true force=true debug=true trainer=gpu trainer.max_epochs=2 "
        "'teacher=[resnet20, wrn_16_2]' +coef.kd=1"
    )
    write_run(tmp_path / "a", "digits_kd", 0, 0.9, told=told)
    (row,) = leaderboard(completed_records(tmp_path))
    assert row.settings == "trainer.max_epochs=2 teacher=[resnet20, wrn_16_2] +coef.kd=1"


@pytest.mark.parametrize(
    "damage",
    [
        "", "{", "[]", '{"format": 1}', '{"format": 1, "status": "completed"}',
        '{"format": 1, "status": "completed", "dataset": [], "experiment": "x", "command": "c"}',
    ],
)  # fmt: skip
def test_a_damaged_record_is_named_and_passed_over(tmp_path, capsys, damage):
    write_run(tmp_path / "broken", "digits_ce", 0, 0.9)
    (tmp_path / "broken" / "run.json").write_text(damage)
    with pytest.raises(UserError, match=r"No completed run lies below .* \(0 unfinished, 1 damaged\)"):
        completed_records(tmp_path)
    write_run(tmp_path / "whole", "digits_ce", 1, 0.9)
    capsys.readouterr()
    assert [record["seed"] for record in completed_records(tmp_path)] == [1]
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ")
    assert str(tmp_path / "broken" / "run.json") in warning.replace("\n", "")


def test_unfinished_runs_are_left_out_and_counted_where_there_is_nothing_else(tmp_path):
    write_run(tmp_path / "cut", "digits_ce", 0, 0.9, status="interrupted")
    with pytest.raises(UserError, match=r"No completed run lies below .* \(1 unfinished\)"):
        completed_records(tmp_path)


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        completed_records(tmp_path / "nothing")


BUDGET = {"epochs": 8, "batch_size": 32, "networks_trained": 1, "student_initial": "a" * 16}


def test_an_unequal_budget_is_named_in_the_row_and_an_equal_one_is_not(tmp_path):
    for name, budget in {"ce": BUDGET, "avg": BUDGET, "dml": {**BUDGET, "networks_trained": 3}}.items():
        write_run(tmp_path / name, "digits", 0, 0.9, told=f"method={name}", budget=budget)
    rows = {row.settings: row for row in leaderboard(completed_records(tmp_path))}
    assert rows["method=dml"].unequal == ("networks_trained 3",)
    assert rows["method=ce"].unequal == rows["method=avg"].unequal == ()
    assert "| networks_trained 3 |" in markdown(list(rows.values()))


def test_another_initial_student_is_named_for_its_seed_and_another_seed_is_not(tmp_path):
    for seed, name in ((0, "ce"), (1, "ce"), (0, "avg"), (1, "avg"), (0, "kd"), (1, "kd")):
        digest = "x" * 16 if (seed, name) == (1, "kd") else str(seed) * 16
        budget = {**BUDGET, "student_initial": digest}
        write_run(tmp_path / f"{name}{seed}", "digits", seed, 0.9, told=f"method={name}", budget=budget)
    rows = {row.settings: row for row in leaderboard(completed_records(tmp_path))}
    assert rows["method=kd"].unequal == (f"student_initial of seed 1 {'x' * 16}",)
    assert rows["method=ce"].unequal == ()


def test_budgets_are_compared_within_one_problem_only(tmp_path):
    write_run(tmp_path / "small", "a", 0, 0.9, budget=BUDGET, student={"network": "small"})
    write_run(tmp_path / "large", "b", 0, 0.9, budget={**BUDGET, "epochs": 200}, student={"network": "large"})
    assert all(row.unequal == () for row in leaderboard(completed_records(tmp_path)))
