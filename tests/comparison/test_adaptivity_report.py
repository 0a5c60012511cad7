"""Whether the weights of the teachers adapt, in the report, from the evaluations in the run folders."""

import math

import pytest

from amtml_pl.comparison.adaptivity_table import adapted_groups, adaptivity_table, class_tables, constant
from amtml_pl.comparison.evaluated_runs import evaluated
from amtml_pl.comparison.markdown import markdown
from amtml_pl.comparison.page import page
from evaluations import adaptivity, evaluation, write_evaluation
from study import figures, problem_of, write_run

TEACHERS = {"teachers": {"a": {}, "b": {}}}
BY_CLASS = {"cat": 0.2, "dog": 0.6}
CONSTANT = {"deviation": 0.0, "between_classes": None}


def write_weighted(folder, method, *seeds, reads_labels=False, own=0.75):
    """Write a run for each adaptivity; mean weights have an accuracy of 0.72."""
    for seed, measured in enumerate(seeds):
        write_run(folder / f"{method}{seed}", "x", seed, 0.75, typed=f"method={method}", **TEACHERS)
        values = {"uniform": 0.7, "own_mean": 0.72, "own": own}
        found = evaluation(seed, values, adaptivity=measured, reads_labels=reads_labels)
        write_evaluation(folder / f"{method}{seed}", found)


def groups_in(folder):
    return adapted_groups(evaluated(problem_of(folder)))


def cells_of(folder):
    """Return the cells of the only row of the table, by column."""
    table = adaptivity_table(groups_in(folder))
    (row,) = table.rows
    return dict(zip(table.columns, row, strict=True))


def test_a_group_has_a_row_of_means_over_its_seeds_and_the_gain_over_mean_weights(tmp_path):
    write_weighted(tmp_path, "amtml", adaptivity(BY_CLASS), adaptivity(BY_CLASS, right=0.9, deviation=0.4))
    assert cells_of(tmp_path) == {
        "group": "amtml", "n": "2", "effective teachers": f"{math.exp(0.5):.4f} ± 0.0000",
        "deviation": "0.3000 ± 0.1414", "between classes": "0.2500 ± 0.0000",
        "weight of right teachers": "0.8000 ± 0.1414", "weight gained": "+0.2000 ± 0.1414",
        "accuracy gained": "+0.0300 ± 0.0000", "NLL gained": "+0.0300 ± 0.0000",
    }  # fmt: skip


def test_a_seed_without_disputed_images_has_no_weight_of_right_teachers(tmp_path):
    unanimous = {"disputed": 0.0, "right": None, "right_constant": None}
    write_weighted(tmp_path, "amtml", adaptivity(BY_CLASS), adaptivity(BY_CLASS, **unanimous))
    assert cells_of(tmp_path)["weight gained"] == "+0.1000 (1 seed)"


def test_weights_that_read_labels_are_marked(tmp_path):
    write_weighted(tmp_path, "camkd", adaptivity(BY_CLASS), reads_labels=True)
    assert cells_of(tmp_path)["group"] == "camkd (reads labels)"


def test_groups_with_equal_weights_are_a_sentence(tmp_path):
    write_weighted(tmp_path, "avg", adaptivity(BY_CLASS, **CONSTANT))
    groups = groups_in(tmp_path)
    assert adaptivity_table(groups) is None
    assert constant(groups) == "The weights are equal for all images: avg."
    assert "spread" not in figures(tmp_path)
    assert constant(groups) in markdown([problem_of(tmp_path)], "test/acc")


def test_groups_without_weights_per_image_have_neither(tmp_path):
    write_weighted(tmp_path, "aekd", None)
    assert groups_in(tmp_path) == []
    assert "Do the weights adapt?" not in markdown([problem_of(tmp_path)], "test/acc")


def test_the_figure_has_a_point_and_a_range_by_class_and_teacher(tmp_path):
    write_weighted(tmp_path, "amtml", adaptivity(BY_CLASS), adaptivity({"cat": 0.4, "dog": 0.8}))
    (variant,) = figures(tmp_path)["spread"].variants
    a, b = variant.traces
    assert variant.label == "amtml"
    assert a["x"] == ["all classes", "cat", "dog"]
    assert a["y"] == pytest.approx([0.5, 0.3, 0.7])
    assert b["y"] == pytest.approx([0.5, 0.7, 0.3])
    assert a["error_y"]["array"] == a["error_y"]["arrayminus"] == pytest.approx([0.1] * 3)


def test_many_classes_are_sorted_by_the_favoured_teacher_and_have_no_table(tmp_path):
    weights = {f"c{number}": 0.1 + 0.8 * (number * 7 % 30) / 29 for number in range(30)}
    write_weighted(tmp_path, "amtml", adaptivity(weights))
    a, b = figures(tmp_path)["spread"].variants[0].traces
    favoured = [max(pair) for pair in zip(a["y"], b["y"], strict=True)][1:]
    of_a = [x > 0.5 for x in a["y"][1:]]
    assert a["x"][0] == "all classes"
    assert of_a == sorted(of_a, reverse=True)
    assert favoured == [*sorted(favoured[: sum(of_a)])[::-1], *sorted(favoured[sum(of_a) :])[::-1]]
    assert class_tables(groups_in(tmp_path)) == []


def test_a_class_that_only_some_seeds_have_is_averaged_over_these(tmp_path):
    write_weighted(tmp_path, "amtml", adaptivity(BY_CLASS), adaptivity({"cat": 0.4}))
    (table,) = class_tables(groups_in(tmp_path))
    assert table.columns == ["class", "a", "b"]
    assert table.rows[1:] == [
        ["cat", "0.30 (0.20 to 0.40)", "0.70 (0.60 to 0.80)"],
        ["dog", "0.60 (0.50 to 0.70)", "0.40 (0.30 to 0.50)"],
    ]


def test_page_and_markdown_have_the_tables(tmp_path):
    write_weighted(tmp_path, "a<b", adaptivity(BY_CLASS))
    found = problem_of(tmp_path)
    text, html = markdown([found], "test/acc"), page([found], [], tmp_path, "test/acc", [])
    assert "### Do the weights adapt?" in text
    assert "| a&lt;b | 1 | 1.6487 | 0.2000 | 0.2500 | 0.7000 | +0.1000 | +0.0300 | +0.0300 |" in text
    assert "a&lt;b:\n\n| class | a | b |" in text
    assert "| cat | 0.20 (0.10 to 0.30) | 0.80 (0.70 to 0.90) |" in text
    assert 'aria-label="Do the weights adapt?"' in html
    assert '<tr><th scope="row">a&lt;b</th><td class="number">1</td><td class="number">1.6487</td>' in html
