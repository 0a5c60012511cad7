"""What a report's figures say of the time that runs took, and of the cache."""

import json

import pytest

from amtml_pl.comparison.baseline import compare_with
from amtml_pl.comparison.cost_figure import cost_against_accuracy
from records import a_timing
from sealing import write_record
from study import BUDGET, figures, problem_of, write_run, write_study, write_whole


def test_the_time_of_the_teachers_is_not_counted_twice(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    (trace,) = figures(tmp_path)["cost"].variants[0].traces
    assert trace["x"] == [pytest.approx(75 / 60)]  # the fit, its waiting included


def test_methods_cost_the_same_whichever_came_first_and_built_the_cache(tmp_path):
    for method in ("avg", "amtml"):
        for seed in (0, 1):
            built = 600.0 if (method, seed) == ("avg", 0) else 0.0
            write_run(tmp_path / f"{method}{seed}", "small", seed, 0.6, told=f"method={method}",
                      timing={"fit_seconds": 60.0, "cache_build_seconds": built})  # fmt: skip
    figure = figures(tmp_path)["cost"]
    assert figure.variants[0].traces[0]["x"] == [1.0, 1.0]
    assert "Not in the points: the 10.0 minutes that these runs took" in figure.description


@pytest.mark.parametrize(("metric", "better"), [("test/acc", "Above"), ("test/loss", "Below")])
def test_the_better_side_is_where_the_metric_is_better(tmp_path, metric, better):
    for method in ("ce", "avg"):
        write_run(tmp_path / method, "small", 0, 0.6, told=f"method={method}", metrics={metric: 0.5})
    assert f"{better} and left is better" in figures(tmp_path, metric)["cost"].description


def test_of_many_groups_the_best_the_baseline_and_the_unbeaten_are_named(tmp_path):
    cost = {0: 9, 5: 4, 7: 3, 12: 1}  # minutes by rank, best first; all others take 10
    for rank in range(14):
        write_run(tmp_path / f"{rank}", "small", 0, 0.9 - rank / 100, told=f"method=m{rank}",
                  timing={"fit_seconds": 60.0 * cost.get(rank, 10)})  # fmt: skip
    problem = problem_of(tmp_path)
    compare_with([problem], "m9", "test/acc")
    figure = cost_against_accuracy(problem, "test/acc")
    assert [name for name in figure.variants[0].traces[0]["text"] if name] == ["m0", "m5", "m7", "m9", "m12"]
    assert "Named are the best, the baseline" in figure.description


def test_passes_that_were_made_and_saved_add_up_to_those_of_live_runs(tmp_path):
    write_study(tmp_path, methods=("avg",), epochs=8)
    figure = figures(tmp_path)["cache"]
    made, saved = figure.variants[0].traces
    assert (made["x"], saved["x"]) == ([4.0], [44.0])  # 3 seeds, 8 epochs, 2 teachers
    assert "is not told: no live run of these teachers was measured" in figure.description


def test_time_saved_is_told_from_a_measured_live_run(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0, 1), epochs=8)
    write_whole(tmp_path / "live", "live", 0, 0.7, 4, ("resnet14", "vgg8"))
    file = tmp_path / "live" / "run.json"
    record = json.loads(file.read_text())
    timing = a_timing(fit_seconds=300.0, teacher_seconds=240.0)
    record |= {"cache": None, "teacher_source": "live", "timing": timing}
    write_record(file.parent, record)
    told = figures(tmp_path)["cache"].description
    # 240 s in 4 epochs; two cached runs of 8 epochs, each 1 s of waiting and 9 s of building
    assert "waited 16.0 minutes for as many epochs as 2 cached runs have, which waited 0.3 minutes" in told


STORES = {"a": "a/logits-train-111", "b": "b/logits-train-222"}


def write_cached(folder, method, seed, teachers, *, views=4, made=0.0):
    stores = [*(STORES[name] for name in teachers), "a/layer3-train-333"]
    cache = {"views": views, "stores": stores, "teacher_passes": dict.fromkeys(teachers, made)}
    taught = {"teachers": {name: {} for name in teachers}, "cache": cache}
    write_run(folder, "small", seed, 0.6, told=f"method={method}", budget=BUDGET, **taught)


def test_stores_that_the_cache_command_built_are_counted_once(tmp_path):
    for seed in (0, 1):
        write_cached(tmp_path / f"avg{seed}", "avg", seed, ("a", "b"))
    figure = figures(tmp_path)["cache"]
    assert "by these runs and at least 8 were found ready" in figure.description
    made, ready, saved = figure.variants[0].traces
    assert (made["x"], ready["x"]) == ([0.0], [8.0])  # two stores of 4 views
    assert saved["x"] == [2 * 8 * 2 - 8]  # two seeds, 8 epochs, two teachers


def test_passes_are_shared_by_the_methods_that_use_a_store_whichever_came_first(tmp_path):
    write_cached(tmp_path / "first", "avg", 0, ("a", "b"), made=4.0)
    write_cached(tmp_path / "second", "amtml", 0, ("a", "b"))
    write_cached(tmp_path / "third", "one", 0, ("a",), views=6, made=2.0)  # 2 more views of the same store
    figure = figures(tmp_path)["cache"]
    made, saved = figure.variants[0].traces
    assert dict(zip(made["y"], made["x"], strict=True)) == {"avg": 4.0, "amtml": 4.0, "one": 2.0}
    assert sum(made["x"]) == 10  # 6 of a, 4 of b
    assert sum(saved["x"]) == 8 * 5 - 10
    assert "found ready" not in figure.description
