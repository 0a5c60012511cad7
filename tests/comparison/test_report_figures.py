"""What the figures of a report show, and which are left out."""

import json

import pytest

from amtml_pl.comparison.estimates import Estimate
from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.comparison.groups import problems_of
from amtml_pl.comparison.page import figures_of, page
from study import write_run, write_study, write_table, write_whole


def problem_of(folder):
    (problem,) = problems_of(find_runs(folder, "test/acc").compared, "test/acc")
    return problem


def figures(folder, broken=None):
    found = figures_of(problem_of(folder), "test/acc", [] if broken is None else broken)
    return {figure.kind: figure for figure in found}


def test_what_has_nothing_to_show_is_left_out(tmp_path):
    write_study(tmp_path, methods=("ce",))
    assert list(figures(tmp_path)) == ["accuracy", "curves", "cost"]


def test_accuracy_has_a_point_per_seed_and_an_interval_per_group(tmp_path):
    write_study(tmp_path)
    seeds, means = figures(tmp_path)["accuracy"].variants[0].traces
    assert len(seeds["x"]) == 9
    assert means["y"] == ["ce", "avg", "amtml"]  # from below
    assert all(width > 0 for width in means["error_x"]["array"])


def test_a_method_with_one_to_three_teachers_is_a_line(tmp_path):
    for count in (1, 2, 3):
        told = f"teacher=[{','.join('abc'[:count])}]"
        for seed in (0, 1):
            write_whole(
                tmp_path / f"{count}-{seed}", "avg", seed, 0.6 + count / 100, 4, "abc"[:count], told=told
            )
    (line,) = figures(tmp_path)["teachers"].variants[0].traces
    assert (line["name"], line["x"]) == ("avg", [1, 2, 3])
    assert line["y"] == sorted(line["y"])


def test_temperatures_and_coefficients_are_a_map_with_gaps(tmp_path):
    for temperature, kd, accuracy in ((2, 1, 0.6), (4, 1, 0.7), (4, 10, 0.8)):
        write_whole(
            tmp_path / f"{temperature}-{kd}",
            "avg",
            0,
            accuracy,
            4,
            ("a", "b"),
            told=f"temperature={temperature} coef.kd={kd}",
            temperature=temperature,
            kd=kd,
        )
    (trace,) = figures(tmp_path)["temperature"].variants[0].traces
    assert (trace["x"], trace["y"]) == (["2", "4"], ["kd 1", "kd 10"])
    assert [[cell and round(cell, 1) for cell in row] for row in trace["z"]] == [[0.6, 0.7], [None, 0.8]]


def test_several_choices_of_as_many_teachers_are_no_repetitions(tmp_path):
    """Their mean is taken for each seed: the interval is one over seeds."""
    for seed, values in enumerate(((0.6, 0.8), (0.7, 0.9))):
        for teacher, value in zip("ab", values, strict=True):
            write_run(tmp_path / f"{teacher}{seed}", "small", seed, value, study=teacher,
                      told=f"method=avg teacher=[{teacher}]", teachers={teacher: {}})  # fmt: skip
        write_run(tmp_path / f"both{seed}", "small", seed, 0.9, study="both",
                  told="method=avg teacher=[a,b]", teachers={"a": {}, "b": {}})  # fmt: skip
    (line,) = figures(tmp_path)["teachers"].variants[0].traces
    assert line["x"] == [1, 2]
    assert line["y"] == pytest.approx([0.75, 0.9])
    assert line["error_y"]["array"][0] == pytest.approx(Estimate.of([0.7, 0.8]).half_width)
    assert line["text"][0].endswith("(n = 2, 2 choices)")


def test_curves_are_means_over_seeds_with_their_range_for_each_metric(tmp_path):
    write_study(tmp_path, methods=("avg",), epochs=5)
    by_metric = {variant.label: variant.traces for variant in figures(tmp_path)["curves"].variants}
    assert next(iter(by_metric)) == "val/acc"
    line, area = by_metric["val/acc"]
    assert line["x"] == [0, 1, 2, 3, 4]
    assert area["x"] == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    assert min(area["y"]) < min(line["y"]) < max(line["y"]) < max(area["y"])
    assert len(by_metric["val/loss"]) == 1  # the same for all seeds: no range


def test_weights_are_shown_over_time_and_by_class_of_the_last_epoch(tmp_path):
    write_study(tmp_path, methods=("ce", "avg"), epochs=5)
    found = figures(tmp_path)
    assert [variant.label for variant in found["weights"].variants] == ["avg"]
    assert [line["name"] for line in found["weights"].variants[0].traces] == ["resnet14", "vgg8"]
    (heat,) = found["classes"].variants[0].traces
    assert (heat["x"], heat["y"]) == (["cat", "dog"], ["resnet14", "vgg8"])
    assert heat["z"] == [[0.54, 0.54], [0.54, 0.54]]


def test_weights_that_never_change_are_no_figure(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    write_table(
        tmp_path / "avg-0" / "metrics.csv", [["epoch", "weight/a", "weight/b"], [0, 0.5, 0.5], [1, 0.5, 0.5]]
    )
    assert "weights" not in figures(tmp_path)


def test_the_time_of_the_teachers_is_not_counted_twice(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    (trace,) = figures(tmp_path)["cost"].variants[0].traces
    assert trace["x"] == [pytest.approx((75 + 9) / 60)]  # the fit, its waiting included, and the building


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
    del record["cache"]
    record |= {"teacher_source": "live", "timing": {"fit_seconds": 300.0, "teacher_seconds": 240.0}}
    file.write_text(json.dumps(record))
    told = figures(tmp_path)["cache"].description
    # 240 s in 4 epochs; two cached runs of 8 epochs, each 1 s of waiting and 9 s of building
    assert "waited 16.0 minutes for as many epochs as 2 cached runs have, which waited 0.3 minutes" in told


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no column epoch"),
        ("epoch,val/acc\n0,much\n", "line 2 has 'much', expected a number"),
        ("epoch,val/acc\n0\n", "line 2 has 1 cells, expected 2"),
        ("epoch,val/acc\n0,\ud800\n", "codec can't decode"),
        ("epoch,val/acc\nnan,0.5\n", "line 2 has epoch nan, expected a whole number, 0 or more"),
        ("epoch,val/acc\n0,0.5\ninf,0.5\n", "line 3 has epoch inf, expected a whole number, 0 or more"),
        ("epoch,val/acc,val/acc\n0,0.5,0.6\n", "it has two columns of one name"),
    ],
)
def test_a_broken_metrics_file_is_named_and_the_run_stays(tmp_path, text, reason):
    write_study(tmp_path, methods=("avg",), seeds=(0, 1))
    (tmp_path / "avg-0" / "metrics.csv").write_bytes(text.encode(errors="surrogatepass"))
    broken = []
    assert "curves" in figures(tmp_path, broken)
    ((file, said),) = broken
    assert file == tmp_path / "avg-0" / "metrics.csv"
    assert reason in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epoch,class,vgg8\n", "it has no rows"),
        ("epoch,class,vgg8\nnan,cat,0.5\n", "line 2 has epoch nan, expected a whole number, 0 or more"),
        ("epoch,class,vgg8\n0,cat,inf\n", "it has weights that are not finite"),
        ("epoch,class,vgg8\n3,cat,0.5\n3,cat,0.6\n", "it has a class twice in epoch 3"),
    ],
)
def test_broken_weights_by_class_are_named_and_the_run_stays(tmp_path, text, reason):
    write_study(tmp_path, methods=("avg",), seeds=(0, 1))
    (tmp_path / "avg-0" / "weights_by_class.csv").write_text(text)
    broken = []
    assert "classes" in figures(tmp_path, broken)  # of the other seed
    assert broken == [(tmp_path / "avg-0" / "weights_by_class.csv", reason)]


def test_empty_cells_and_infinities_are_no_points(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    write_table(
        tmp_path / "avg-0" / "metrics.csv",
        [["epoch", "val/acc"], [0, ""], [1, "nan"], [2, 0.5], [3, 1.7e308]],
    )
    (variant,) = figures(tmp_path)["curves"].variants
    assert variant.traces[0]["x"] == [2]


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def test_what_a_run_says_is_text_wherever_a_page_shows_it(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    file = tmp_path / "avg-0" / "run.json"
    record = json.loads(file.read_text())
    record |= {
        "experiment": EVIL,
        "command": f"python -m amtml_pl.train 'method={EVIL}'",
        "teachers": {EVIL: {}},
    }
    record["dataset"]["name"] = EVIL
    record["budget"]["augment"] = EVIL
    file.write_text(json.dumps(record))
    write_table(tmp_path / "avg-0" / "metrics.csv", [["epoch", EVIL], [0, 1], [1, 2]])
    write_table(tmp_path / "avg-0" / "weights_by_class.csv", [["epoch", "class", EVIL], [0, EVIL, 1]])
    text = page([problem_of(tmp_path)], [], tmp_path, "test/acc", [])
    assert "<script>alert" not in text
    assert "<img src" not in text
    assert "&lt;/script&gt;" in text
