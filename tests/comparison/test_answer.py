"""The first sentences of a comparison: which group is best, by how much, how sure."""

import re

import pytest

from amtml_pl.comparison.answer import answer, differences
from amtml_pl.comparison.estimates import PairedDifference
from study import problems_in, write_run

NOISE = (0.010, -0.004, 0.002, -0.009, 0.005)


def study(folder, accuracies, *, baseline=None, seeds=5, metric="test/acc", **more):
    """Write groups with a mean each; every group has its own order of one noise."""
    for shift, (method, accuracy) in enumerate(accuracies.items()):
        for seed in range(seeds):
            value = accuracy + NOISE[(seed + shift) % 5]
            run = folder / f"{method}{seed}"
            write_run(run, "digits", seed, value, typed=f"method={method}", metrics={metric: value}, **more)
    (problem,) = problems_in(folder, baseline, metric=metric)
    return answer(problem, metric)


def test_the_best_group_is_named_with_those_that_tests_separate_from_it(tmp_path):
    text = study(tmp_path, {"ce": 0.6, "avg": 0.7, "amtml": 0.702})
    first, second, third = text.split(". ")
    assert first.startswith("amtml has the best mean test/acc: 0.7028 ± 0.0075 (n = 5), +0.0020 ± 0.00")
    assert " from the next one, avg (p by Holm 0." in first
    assert second == "It is better than ce (paired t-tests, p by Holm below 0.05)"
    assert third == "The tests do not separate it from avg."
    assert "baseline" not in text


def test_the_distance_from_a_baseline_that_is_not_the_next_one_is_added(tmp_path):
    text = study(tmp_path, {"ce": 0.6, "avg": 0.7, "amtml": 0.702}, baseline="ce")
    assert re.search(
        r"From the baseline ce it differs by \+0\.1020 ± 0\.\d+ \(p by Holm \S+, n = 5\)\.", text
    )
    assert "baseline" not in study(tmp_path, {}, baseline="avg")  # it is the next one


def test_one_seed_is_not_tested(tmp_path):
    text = study(tmp_path, {"ce": 0.6, "avg": 0.7}, seeds=1)
    assert text == (
        "avg has the best mean test/acc: 0.6960 (n = 1), +0.0860 from the next one, ce (n = 1). "
        "No test compares it with ce."
    )


def test_a_group_alone_has_no_other(tmp_path):
    assert study(tmp_path, {"ce": 0.6}) == "ce has the best mean test/acc: 0.6008 ± 0.0075 (n = 5)."


def test_a_smaller_loss_is_better(tmp_path):
    assert study(tmp_path, {"ce": 0.6, "avg": 0.7}, metric="test/loss").startswith("ce has the best mean")


def test_a_group_that_is_better_on_the_shared_seeds_is_not_called_worse(tmp_path):
    for seed in range(7):
        high = 0.9 if seed > 2 else 0.7 + seed / 1000
        write_run(tmp_path / f"a{seed}", "digits", seed, high, typed="method=a")
        if seed < 3:
            write_run(tmp_path / f"b{seed}", "digits", seed, high + 0.02 + seed**2 / 1e5, typed="method=b")
    write_run(tmp_path / "c", "digits", 0, 0.6, typed="method=c")
    (problem,) = problems_in(tmp_path)
    text = answer(problem, "test/acc")
    assert "a has the best mean" in text
    assert "On the seeds that they share, it is worse than b." in text
    assert "No test compares it with c." in text
    assert "better than" not in text


def test_p_is_corrected_for_all_pairs_because_the_best_group_is_chosen_by_the_same_values(tmp_path):
    study(tmp_path, {"ce": 0.6, "avg": 0.7, "amtml": 0.702})
    (problem,) = problems_in(tmp_path)
    best, following = (group.by_seed("test/acc") for group in problem.groups[:2])
    paired = differences(problem.groups, "test/acc")[0]
    assert paired.p == PairedDifference.between(best, following).p
    assert paired.holm == paired.p  # the largest of three
    assert differences(problem.groups, "test/acc")[1].holm >= 2 * differences(problem.groups, "test/acc")[1].p


def test_many_groups_that_are_alike_are_counted(tmp_path):
    text = study(tmp_path, {f"m{number}": 0.7 for number in range(7)})
    assert "m1, m2, m3, m4 and 1 more group." in text


@pytest.mark.parametrize("equal", [True, False])
def test_an_unequal_budget_of_the_best_group_is_named(tmp_path, equal):
    for method, epochs in (("ce", 8), ("avg", 8), ("amtml", 8 if equal else 16)):
        budget = {"epochs": epochs}
        write_run(
            tmp_path / method, "digits", 0, 0.6 + len(method) / 50, typed=f"method={method}", budget=budget
        )
    (problem,) = problems_in(tmp_path)
    assert ("Its budget is unequal: epochs 16." in answer(problem, "test/acc")) is not equal
