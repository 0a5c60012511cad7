"""The figure of the time that runs took, and its caption."""

import pytest

from amtml_pl.comparison.baseline import compare_with
from amtml_pl.comparison.cost_figure import cost_against_accuracy
from study import figures, problem_of, write_run, write_study


def test_the_time_of_the_teachers_is_not_counted_twice(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    (trace,) = figures(tmp_path)["cost"].variants[0].traces
    assert trace["x"] == [pytest.approx(75 / 60)]  # the fit, its waiting included


def test_methods_cost_the_same_whichever_came_first_and_built_the_cache(tmp_path):
    for method in ("avg", "amtml"):
        for seed in (0, 1):
            built = 600.0 if (method, seed) == ("avg", 0) else 0.0
            write_run(tmp_path / f"{method}{seed}", "small", seed, 0.6, typed=f"method={method}",
                      timing={"fit_seconds": 60.0, "cache_build_seconds": built})  # fmt: skip
    figure = figures(tmp_path)["cost"]
    assert [trace["x"] for trace in figure.variants[0].traces] == [[1.0], [1.0]]
    assert "do not include the 10.0 minutes for building the cache" in figure.description


@pytest.mark.parametrize(("metric", "better"), [("test/acc", "Higher"), ("test/loss", "Lower")])
def test_the_better_side_is_where_the_metric_is_better(tmp_path, metric, better):
    for method in ("ce", "avg"):
        write_run(tmp_path / method, "small", 0, 0.6, typed=f"method={method}", metrics={metric: 0.5})
    assert f"{better} and further left is better" in figures(tmp_path, metric)["cost"].description


def test_of_many_groups_the_legend_has_the_best_the_baseline_and_the_unbeaten(tmp_path):
    cost = {0: 9, 5: 4, 7: 3, 12: 1}  # minutes by rank, best first; all others take 10
    for rank in range(14):
        write_run(tmp_path / f"{rank}", "small", 0, 0.9 - rank / 100, typed=f"method=m{rank}",
                  timing={"fit_seconds": 60.0 * cost.get(rank, 10)})  # fmt: skip
    problem = problem_of(tmp_path)
    compare_with([problem], "m9", "test/acc")
    figure = cost_against_accuracy(problem, "test/acc")
    traces = figure.variants[0].traces
    assert [trace["name"] for trace in traces if trace["showlegend"]] == ["m0", "m5", "m7", "m9", "m12"]
    assert "The legend has the best group, the baseline" in figure.description
    marks = [(trace["marker"]["color"], trace["marker"]["symbol"]) for trace in traces]
    assert len(set(marks)) == len(traces)


def test_the_caption_gives_the_passes_of_teachers_that_were_made_and_those_of_live_runs(tmp_path):
    write_study(tmp_path, methods=("ce", "avg"), epochs=8)
    expected = "passed the training split 4 times through a teacher. With live teachers it would be 48 times."
    assert expected in figures(tmp_path)["cost"].description  # 3 seeds, 8 epochs, 2 teachers
