"""Groups of runs, their names, budgets and baseline."""

import pytest

from amtml_pl.comparison.baseline import compare_with
from amtml_pl.comparison.groups import rename
from amtml_pl.comparison.markdown import markdown
from amtml_pl.comparison.tables import cells
from amtml_pl.errors import UserError
from sealing import seal_again
from study import BUDGET, problems_in, write_run


def groups(folder):
    (problem,) = problems_in(folder)
    return problem.groups


def test_seeds_are_one_group_with_mean_and_deviation_and_the_best_comes_first(tmp_path):
    for seed, accuracy in enumerate((0.90, 0.92, 0.94)):
        write_run(tmp_path / f"avg{seed}", "digits_avg", seed, accuracy)
    write_run(tmp_path / "amtml", "digits_amtml", 0, 0.95)
    write_run(tmp_path / "hot", "digits_avg", 0, 0.5, typed="temperature=9")
    (problem,) = problems_in(tmp_path)
    assert [(group.name, len(group.runs)) for group in problem.groups] == [
        ("digits_amtml", 1), ("digits_avg", 3), ("digits_avg temperature=9", 1),
    ]  # fmt: skip
    assert cells(problem.groups[1], problem, "test/acc")["test/acc"] == "0.9200 ± 0.0200"
    assert cells(problem.groups[0], problem, "test/acc")["test/acc"] == "0.9500"


def test_of_a_loss_the_smallest_comes_first(tmp_path):
    for name, loss in (("much", 2.0), ("little", 1.0)):
        write_run(tmp_path / name, name, 0, 0.9, metrics={"test/loss": loss})
    (problem,) = problems_in(tmp_path, metric="test/loss")
    assert [group.name for group in problem.groups] == ["little", "much"]


def test_other_pixels_or_another_student_are_another_problem_with_another_title(tmp_path):
    write_run(tmp_path / "a", "digits_ce", 0, 0.9, digest="a" * 64)
    for macs in (5, 9):
        student = {"network": "models.Net", "parameters": 100, "macs": macs}
        write_run(tmp_path / str(macs), "digits_ce", 0, 0.9, student=student)
    assert sorted(problem.title for problem in problems_in(tmp_path)) == [
        "digits (aaaaaaaa), CifarResNet with 19,954 parameters",
        "digits (dddddddd), Net with 100 parameters (macs 5)",
        "digits (dddddddd), Net with 100 parameters (macs 9)",
    ]


def test_runs_of_one_study_are_one_group_however_their_commands_were_typed(tmp_path):
    write_run(tmp_path / "a", "digits_kd", 0, 0.9, typed="temperature=4 data.views=2", study="s")
    write_run(tmp_path / "b", "digits_kd", 1, 0.9, typed="data.views=2 temperature=4.0", study="s")
    write_run(tmp_path / "c", "digits_kd", 2, 0.9, typed="temperature=4 data.views=2", study="another")
    assert sorted(len(group.runs) for group in groups(tmp_path)) == [1, 2]


def test_a_name_has_what_was_studied_and_not_where_or_how_it_ran(tmp_path):
    typed = (
        "--multirun paths.data='/a folder' hydra.run.dir=x hydra/launcher=joblib +hydra.verbose=true "
        "prepare=true force=true traceback=true trainer=gpu trainer.max_epochs=2 "
        "'teacher=[resnet20, wrn_16_2]' +coef.kd=1"
    )
    write_run(tmp_path / "a", "digits_kd", 0, 0.9, typed=typed)
    (group,) = groups(tmp_path)
    assert group.name == "digits_kd trainer.max_epochs=2 teacher=[resnet20, wrn_16_2] +coef.kd=1"


def test_overrides_of_all_groups_are_named_once_and_methods_without_their_experiment(tmp_path):
    for method in ("ce", "avg"):
        write_run(tmp_path / method, "digits", 0, 0.9, typed=f"method={method} data.views=2")
    (problem,) = problems_in(tmp_path)
    assert sorted(group.name for group in problem.groups) == ["avg", "ce"]
    assert problem.common == ("experiment=digits", "data.views=2")


def test_groups_of_equal_commands_are_named_by_their_records(tmp_path):
    for heat in (4.0, 5.0):
        write_run(tmp_path / f"{heat}", "digits", 0, heat / 10, study=f"{heat}", temperature=heat)
    names = [group.name for group in groups(tmp_path)]
    assert names == ["digits (temperature 5.0)", "digits (temperature 4.0)"]


def test_groups_of_equal_records_are_named_by_configuration_or_number(tmp_path):
    for name, configured in {"a": "relu: true", "b": "activation: tanh", "c": "{", "d": "["}.items():
        write_run(tmp_path / name, "digits", 0, 0.9, study=name)
        (tmp_path / name / "config.yaml").write_text(configured)
        seal_again(tmp_path / name)
    assert sorted(group.name for group in groups(tmp_path)) == [
        "digits #1", "digits #2", "digits (activation tanh)", "digits (relu True)",
    ]  # fmt: skip


def test_an_unequal_budget_is_named_in_the_group_and_an_equal_one_is_not(tmp_path):
    for name, budget in {"ce": BUDGET, "avg": BUDGET, "dml": {**BUDGET, "networks_trained": 3}}.items():
        write_run(tmp_path / name, "digits", 0, 0.9, typed=f"method={name}", budget=budget)
    by_name = {group.name: group for group in groups(tmp_path)}
    assert by_name["dml"].unequal == ("networks_trained 3",)
    assert by_name["ce"].unequal == by_name["avg"].unequal == ()
    assert "| networks_trained 3 |" in markdown(problems_in(tmp_path), "test/acc")


def test_without_a_usual_budget_all_groups_but_the_baseline_name_theirs(tmp_path):
    write_run(tmp_path / "ce", "digits", 0, 0.8, typed="method=ce", budget=BUDGET)
    write_run(tmp_path / "avg", "digits", 0, 0.9, typed="method=avg", budget={**BUDGET, "epochs": 16})
    own = {"ce": ("epochs 8",), "avg": ("epochs 16",)}
    for baseline, expected in ((None, own), ("ce", own | {"ce": ()}), ("avg", own | {"avg": ()})):
        (problem,) = problems_in(tmp_path, baseline)
        assert {group.name: group.unequal for group in problem.groups} == expected


def test_the_budgets_of_all_runs_of_a_group_count(tmp_path):
    for seed, epochs in enumerate((8, 16)):
        write_run(tmp_path / f"kd{seed}", "digits", seed, 0.9, study="kd", typed="method=kd",
                  budget={**BUDGET, "epochs": epochs})  # fmt: skip
    for name in ("ce", "avg"):
        write_run(tmp_path / name, "digits", 0, 0.8, typed=f"method={name}", budget=BUDGET)
    by_name = {group.name: group.unequal for group in groups(tmp_path)}
    assert by_name == {"kd": ("epochs 16/8",), "ce": (), "avg": ()}


def test_another_initial_student_is_named_for_its_seed_and_another_seed_is_not(tmp_path):
    for seed, name in ((0, "ce"), (1, "ce"), (0, "avg"), (1, "avg"), (0, "kd"), (1, "kd")):
        digest = "x" * 16 if (seed, name) == (1, "kd") else str(seed) * 16
        budget = {**BUDGET, "student_initial": digest}
        write_run(tmp_path / f"{name}{seed}", "digits", seed, 0.9, typed=f"method={name}", budget=budget)
    by_name = {group.name: group for group in groups(tmp_path)}
    assert by_name["kd"].unequal == (f"student_initial of seed 1 {'x' * 16}",)
    assert by_name["ce"].unequal == ()


def test_budgets_are_compared_within_one_problem_only(tmp_path):
    write_run(tmp_path / "small", "a", 0, 0.9, budget=BUDGET, student={"network": "small"})
    write_run(tmp_path / "large", "b", 0, 0.9, budget={**BUDGET, "epochs": 200}, student={"network": "large"})
    assert all(group.unequal == () for problem in problems_in(tmp_path) for group in problem.groups)


def test_every_group_is_paired_with_the_baseline_of_that_method_with_the_fewest_settings(tmp_path):
    for seed, gain in enumerate((0.02, 0.03)):
        write_run(tmp_path / f"ce{seed}", "digits", seed, 0.9, typed="method=ce")
        write_run(tmp_path / f"avg{seed}", "digits", seed, 0.9 + gain, typed="method=avg")
        write_run(tmp_path / f"hot{seed}", "digits", seed, 0.8, typed="method=ce temperature=9")
    (problem,) = found = problems_in(tmp_path, "ce")
    by_name = {group.name: group.against_baseline for group in problem.groups}
    assert problem.baseline.name == "ce"
    assert by_name["avg"].difference() == "+0.0250 ± 0.0050"
    assert by_name["avg"].p == pytest.approx(0.1256659, abs=1e-6)  # scipy.stats.ttest_rel
    assert by_name["ce temperature=9"].difference() == "-0.1000 ± 0.0000"
    compare_with(found, "ce temperature=9", "test/acc")  # a group's whole name
    assert problem.baseline.name == "ce temperature=9"
    with pytest.raises(
        UserError, match=r"agv is not a method, experiment or group of these runs \(did you mean 'avg'\?\)"
    ):
        compare_with(found, "agv", "test/acc")


def test_an_ambiguous_baseline_is_an_error_that_lists_the_groups(tmp_path):
    for study in ("one", "two"):
        write_run(tmp_path / study, "digits", 0, 0.9, typed="method=ce", study=study)
    with pytest.raises(UserError, match=r"(?s)baseline=ce matches 2 groups.*- ce #1.*- ce #2"):
        compare_with(problems_in(tmp_path), "ce", "test/acc")


def test_a_problem_without_the_baseline_has_none(tmp_path):
    write_run(tmp_path / "a", "digits", 0, 0.9, typed="method=ce", digest="a" * 64)
    write_run(tmp_path / "b", "digits", 0, 0.9, typed="method=avg", digest="b" * 64)
    one, other = found = problems_in(tmp_path)
    compare_with(found, "ce", "test/acc")
    assert one.baseline is one.groups[0]
    assert other.baseline is None


def test_teachers_that_all_runs_with_teachers_share_are_in_no_name(tmp_path):
    typed = "teacher=[vgg8,resnet8] teacher.vgg8.recipe_overrides=[trainer.max_epochs=30]"
    write_run(tmp_path / "ce", "digits", 0, 0.7, typed="method=ce")
    for method in ("avg", "amtml"):
        taught = {"vgg8": {}, "resnet8": {}}
        write_run(tmp_path / method, "digits", 0, 0.8, typed=f"method={method} {typed}", teachers=taught)
    problems = problems_in(tmp_path)
    assert {group.name for group in problems[0].groups} == {"ce", "avg", "amtml"}
    assert "All runs with teachers have: teacher=" in markdown(problems, "test/acc")


def test_words_of_names_are_replaced_for_a_paper(tmp_path):
    for number, typed in enumerate(("method=avg", "method=avg temperature=9", "method=amtml")):
        write_run(tmp_path / str(number), "digits", 0, 0.8, typed=typed)
    problems = problems_in(tmp_path)
    rename(problems, {"avg": "Average", "amtml": "AMTML-KD"})
    assert {group.name for group in problems[0].groups} == {"Average", "Average temperature=9", "AMTML-KD"}
    rename(problems, {"Average temperature=9": "Average, T = 9", "Average": "Mean"})
    assert {group.name for group in problems[0].groups} == {"Mean", "Average, T = 9", "AMTML-KD"}
    rename(problems, {"Mean": "Average"})
    rename(problems, {"Average, T = 9": "Warm", "Average,": "first word of the same name"})
    with pytest.raises(UserError, match=r"\(got 'avg', names are .*AMTML-KD"):
        rename(problems, {"avg": "Mean"})
    with pytest.raises(UserError, match="gives the name 'Average' to several groups"):
        rename(problems, {"AMTML-KD": "Average"})
