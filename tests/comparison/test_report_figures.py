"""Data of the report's figures, and figures that are left out."""

import json

import pytest

from amtml_pl.comparison.page import page
from records import TEACHER
from sealing import seal_again, write_record
from study import figures, problem_of, write_run, write_study, write_table


def test_figures_without_data_are_left_out(tmp_path):
    write_study(tmp_path, methods=("ce",))
    assert list(figures(tmp_path)) == ["accuracy", "curves", "cost"]


def test_accuracy_has_a_point_per_seed_and_an_interval_per_group(tmp_path):
    write_study(tmp_path)
    figure = figures(tmp_path)["accuracy"]
    (variant,) = figure.variants
    seeds, means, *teachers = variant.traces
    assert len(seeds["x"]) == 9
    assert means["y"] == ["ce", "avg", "amtml"]  # from below
    low, high = variant.layout["xaxis"]["range"]
    for mean, width in zip(means["x"], means["error_x"]["array"], strict=True):
        assert low < mean - width < mean + width < high
    assert "wider than the figure" not in figure.description
    assert [trace["name"] for trace in teachers] == ["teacher resnet14", "teacher vgg8"]


def test_intervals_of_two_seeds_are_cut_and_the_caption_reports_it(tmp_path):
    for method, accuracies in {"ce": (0.60, 0.62), "avg": (0.63, 0.64)}.items():
        for seed, accuracy in enumerate(accuracies):
            write_run(tmp_path / f"{method}{seed}", "digits", seed, accuracy, typed=f"method={method}")
    figure = figures(tmp_path)["accuracy"]
    low, high = figure.variants[0].layout["xaxis"]["range"]
    assert 0.59 < low < 0.60 < 0.64 < high < 0.65  # ce's interval is 0.61 ± 0.127
    assert figure.description.endswith("Some intervals of two seeds are wider than the figure.")


METRICS, CLASSES = "metrics.csv", "weights_by_class.csv"


def overwritten(folder, name, text):
    """Overwrite a run's table, and seal the run again."""
    (folder / name).write_bytes(text.encode(errors="surrogatepass"))
    seal_again(folder)
    return folder / name


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
    assert found["classes"].variants[0].layout["yaxis"]["autorange"] == "reversed"  # the first one on top
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
    assert heat["texttemplate"] == ("" if is_wide else "%{z:.2f}")  # a number has room in a wide cell only
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
    overwritten(tmp_path / "avg-0", "metrics.csv", "epoch,weight/a,weight/b\n0,0.5,0.5\n1,0.5,0.5\n")
    assert "weights" not in figures(tmp_path)


EXPECTED = "expected a whole number, 0 or more"


@pytest.mark.parametrize(
    ("figure", "name", "text", "reason"),
    [
        ("curves", METRICS, "", "the first column is '', expected 'epoch'"),
        ("curves", METRICS, "epoch,val/acc\n0,much\n", "could not convert string to float: 'much'"),
        ("curves", METRICS, "epoch,val/acc\n0\n", "line 2 has 1 cells, expected 2"),
        ("curves", METRICS, "epoch,val/acc\n0,\ud800\n", "codec can't decode"),
        ("curves", METRICS, "epoch,val/acc\n0,0.5\ninf,0.5\n", f"line 3 has the epoch 'inf', {EXPECTED}"),
        ("curves", METRICS, "epoch,val/acc,val/acc\n0,0.5,0.6\n", "two columns have the same name"),
        ("classes", CLASSES, "epoch,class,vgg8\n", "the table has no rows"),
        ("classes", CLASSES, "epoch,class,vgg8\nnan,cat,0.5\n", f"line 2 has the epoch 'nan', {EXPECTED}"),
        ("classes", CLASSES, "epoch,class,vgg8\n0,cat,inf\n", "some weights are not finite"),
        ("classes", CLASSES, "epoch,class,vgg8\n3,cat,0.5\n3,cat,0.6\n", "epoch 3 has the same class twice"),
    ],
)
def test_a_broken_table_is_named_and_the_run_and_the_figure_stay(tmp_path, figure, name, text, reason):
    write_study(tmp_path, methods=("avg",), seeds=(0, 1))
    file = overwritten(tmp_path / "avg-0", name, text)
    broken = []
    assert figure in figures(tmp_path, broken=broken)  # of the other seed
    [(named, message)] = broken
    assert named == file
    assert reason in message


def test_empty_cells_and_infinities_are_no_points(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    overwritten(tmp_path / "avg-0", "metrics.csv", "epoch,val/acc\n0,\n1,nan\n2,0.5\n3,1.7e308\n")
    (variant,) = figures(tmp_path)["curves"].variants
    assert variant.traces[0]["x"] == [2]


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def test_names_of_a_run_are_escaped_everywhere_on_the_page(tmp_path):
    write_study(tmp_path, methods=("avg",), seeds=(0,))
    file = tmp_path / "avg-0" / "run.json"
    record = json.loads(file.read_text())
    typed = f"python -m amtml_pl.train 'method={EVIL}'"
    record |= {"experiment": EVIL, "command": typed, "teachers": {EVIL: TEACHER}}
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
