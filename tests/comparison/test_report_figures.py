"""What the figures of a report show, and which are left out."""

import json

import pytest

from amtml_pl.comparison.page import page
from records import TEACHER
from sealing import seal_again, write_record
from study import figures, problem_of, write_run, write_study, write_table


def test_what_has_nothing_to_show_is_left_out(tmp_path):
    write_study(tmp_path, methods=("ce",))
    assert list(figures(tmp_path)) == ["accuracy", "curves", "cost"]


def test_accuracy_has_a_point_per_seed_and_an_interval_per_group(tmp_path):
    write_study(tmp_path)
    seeds, means, *teachers = figures(tmp_path)["accuracy"].variants[0].traces
    assert len(seeds["x"]) == 9
    assert means["y"] == ["ce", "avg", "amtml"]  # from below
    assert all(width > 0 for width in means["error_x"]["array"])
    assert [trace["name"] for trace in teachers] == ["teacher resnet14", "teacher vgg8"]


def test_intervals_of_two_seeds_do_not_squash_the_figure_and_it_is_said_that_they_go_beyond(tmp_path):
    for method, accuracies in {"ce": (0.60, 0.62), "avg": (0.63, 0.64)}.items():
        for seed, accuracy in enumerate(accuracies):
            write_run(tmp_path / f"{method}{seed}", "digits", seed, accuracy, told=f"method={method}")
    figure = figures(tmp_path)["accuracy"]
    low, high = figure.variants[0].layout["xaxis"]["range"]
    assert 0.59 < low < 0.60 < 0.64 < high < 0.65  # ce's interval is 0.61 ± 0.127
    assert figure.description.endswith("Intervals of two seeds go beyond the frame.")


def test_where_every_interval_is_seen_nothing_is_said_of_the_frame(tmp_path):
    write_study(tmp_path)
    figure = figures(tmp_path)["accuracy"]
    low, high = figure.variants[0].layout["xaxis"]["range"]
    means, half = (figure.variants[0].traces[1][key] for key in ("x", "error_x"))
    for mean, width in zip(means, half["array"], strict=True):
        assert low < mean - width < mean + width < high
    assert "beyond the frame" not in figure.description


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


@pytest.mark.parametrize(("count", "gap", "is_wide"), [(10, 1, False), (100, 0, True)])
def test_many_classes_have_no_gaps_the_whole_width_and_an_order(tmp_path, count, gap, is_wide):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    rows = [[0, f"class {k}", w := (k * 37 % 100) / 100, round(1 - w, 2)] for k in range(count)]
    write_table(tmp_path / "avg-0" / "weights_by_class.csv", [["epoch", "class", "a", "b"], *rows])
    seal_again(tmp_path / "avg-0")
    figure = figures(tmp_path)["classes"]
    (heat,) = figure.variants[0].traces
    assert (heat["xgap"], figure.is_wide) == (gap, is_wide)
    written = {name: (a, b) for _, name, a, b in rows}
    assert {name: own for name, *own in zip(heat["x"], *heat["z"], strict=True)} == {
        name: list(own) for name, own in written.items()
    }
    if is_wide:
        leading = ["a" if a >= b else "b" for a, b in zip(*heat["z"], strict=True)]
        assert leading == sorted(leading)
        assert heat["z"][0][: leading.count("a")] == sorted(heat["z"][0][: leading.count("a")], reverse=True)
    else:
        assert heat["x"] == list(written)


def test_weights_that_never_change_are_no_figure(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    write_table(
        tmp_path / "avg-0" / "metrics.csv", [["epoch", "weight/a", "weight/b"], [0, 0.5, 0.5], [1, 0.5, 0.5]]
    )
    seal_again(tmp_path / "avg-0")
    assert "weights" not in figures(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "its first column is '', expected 'epoch'"),
        ("epoch,val/acc\n0,much\n", "could not convert string to float: 'much'"),
        ("epoch,val/acc\n0\n", "it has a row of 1 cells, expected 2"),
        ("epoch,val/acc\n0,\ud800\n", "codec can't decode"),
        ("epoch,val/acc\nnan,0.5\n", "it has the epoch 'nan', expected a whole number, 0 or more"),
        ("epoch,val/acc\n0,0.5\ninf,0.5\n", "it has the epoch 'inf', expected a whole number, 0 or more"),
        ("epoch,val/acc,val/acc\n0,0.5,0.6\n", "it has two columns of one name"),
    ],
)
def test_a_broken_metrics_file_is_named_and_the_run_stays(tmp_path, text, reason):
    write_study(tmp_path, methods=("avg",), seeds=(0, 1))
    (tmp_path / "avg-0" / "metrics.csv").write_bytes(text.encode(errors="surrogatepass"))
    seal_again(tmp_path / "avg-0")
    broken = []
    assert "curves" in figures(tmp_path, broken=broken)
    ((file, said),) = broken
    assert file == tmp_path / "avg-0" / "metrics.csv"
    assert reason in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epoch,class,vgg8\n", "it has no rows"),
        ("epoch,class,vgg8\nnan,cat,0.5\n", "it has the epoch 'nan', expected a whole number, 0 or more"),
        ("epoch,class,vgg8\n0,cat,inf\n", "it has weights that are not finite"),
        ("epoch,class,vgg8\n3,cat,0.5\n3,cat,0.6\n", "it has a class twice in epoch 3"),
    ],
)
def test_broken_weights_by_class_are_named_and_the_run_stays(tmp_path, text, reason):
    write_study(tmp_path, methods=("avg",), seeds=(0, 1))
    (tmp_path / "avg-0" / "weights_by_class.csv").write_text(text)
    seal_again(tmp_path / "avg-0")
    broken = []
    assert "classes" in figures(tmp_path, broken=broken)  # of the other seed
    assert broken == [(tmp_path / "avg-0" / "weights_by_class.csv", reason)]


def test_empty_cells_and_infinities_are_no_points(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    write_table(
        tmp_path / "avg-0" / "metrics.csv",
        [["epoch", "val/acc"], [0, ""], [1, "nan"], [2, 0.5], [3, 1.7e308]],
    )
    seal_again(tmp_path / "avg-0")
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
        "teachers": {EVIL: TEACHER},
    }
    record["metrics"] |= {f"teacher/{EVIL}/{split}/acc": 0.9 for split in ("val", "test")}
    record["dataset"]["name"] = EVIL
    record["budget"]["augment"] = EVIL
    write_record(file.parent, record)
    write_table(tmp_path / "avg-0" / "metrics.csv", [["epoch", EVIL], [0, 1], [1, 2]])
    write_table(tmp_path / "avg-0" / "weights_by_class.csv", [["epoch", "class", EVIL], [0, EVIL, 1]])
    seal_again(tmp_path / "avg-0")
    text = page([problem_of(tmp_path)], [], tmp_path, "test/acc", [])
    assert "<script>alert" not in text
    assert "<img src" not in text
    assert "&lt;/script&gt;" in text
