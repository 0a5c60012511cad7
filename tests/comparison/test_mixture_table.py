"""The table of what the teachers' outputs could give, from the evaluations in the run folders."""

import json

import pytest

from amtml_pl.comparison.evaluated_runs import evaluated
from amtml_pl.comparison.markdown import markdown
from amtml_pl.comparison.mixture_table import mixture_tables
from amtml_pl.comparison.page import page
from evaluations import evaluation, write_evaluation
from study import problem_of, write_run

TEACHERS = {"teachers": {"a": {}, "b": {}}}
VALUES = {"uniform": 0.70, "per_teacher": 0.71, "best_single": 0.69, "likeliest": 0.90, "any_right": 0.92}


def write_evaluated(folder, method, own, **more):
    """Write two seeds of a method; the own weights have these accuracies, equal weights 0.70 and 0.72."""
    for seed, value in enumerate(own):
        write_run(folder / f"{method}{seed}", "x", seed, 0.75, typed=f"method={method}", **TEACHERS)
        values = {name: acc + 0.02 * seed for name, acc in VALUES.items()}
        values |= {} if value is None else {"own": value}
        found = evaluation(seed, values, **more)
        write_evaluation(folder / f"{method}{seed}", found)


def rows_of(folder):
    """Return the cells by group and measure."""
    rows = {}
    for table in mixture_tables(evaluated(problem_of(folder))):
        for row in table.rows:
            rows[row[0], table.caption] = dict(zip(table.columns, row, strict=True))
    return rows


def notes_of(folder):
    return evaluated(problem_of(folder)).notes


def test_a_group_has_the_mean_of_every_mixture_and_the_gains_over_equal_weights(tmp_path):
    write_evaluated(tmp_path, "amtml", (0.74, 0.78))
    write_run(tmp_path / "ce", "x", 0, 0.6, typed="method=ce")
    assert rows_of(tmp_path)["amtml", "accuracy"] == {
        "group": "amtml", "n": "2", "student": "0.7500 ± 0.0000",
        "equal weights": "0.7100 ± 0.0141", "one weight per teacher": "0.7200 ± 0.0141",
        "best single teacher": "0.7000 ± 0.0141", "weights per image": "0.7600 ± 0.0283",
        "likeliest teacher per image": "0.9100 ± 0.0141", "any teacher right": "0.9300 ± 0.0141",
        "to win": "+0.2200 ± 0.0000", "won per teacher": "+0.0100 ± 0.0000",
        "won per image": "+0.0500 ± 0.0141",
    }  # fmt: skip
    likelihood = rows_of(tmp_path)["amtml", "NLL"]
    assert "any teacher right" not in likelihood
    assert likelihood["to win"] == "+0.2000 ± 0.0000"  # of the likeliest teacher; a gain is a smaller NLL
    assert likelihood["won per image"] == "+0.0500 ± 0.0141"
    assert rows_of(tmp_path).keys() == {("amtml", "accuracy"), ("amtml", "NLL")}


def test_weights_that_read_labels_are_marked_and_missing_ones_have_a_reason(tmp_path):
    write_evaluated(tmp_path, "camkd", (0.8, 0.8), reads_labels=True)
    write_evaluated(tmp_path, "mmkd", (None, None), absent={"own": "computed only during training"})
    found = rows_of(tmp_path)
    assert found["camkd", "accuracy"]["weights per image"] == "0.8000 ± 0.0000 (reads labels)"
    assert found["camkd", "accuracy"]["won per image"] == "+0.0900 ± 0.0141 (reads labels)"
    assert found["mmkd", "accuracy"]["weights per image"] == ""
    assert notes_of(tmp_path) == ["mmkd: weights per image left out: computed only during training"]


def test_a_missing_evaluation_has_the_command_that_makes_it(tmp_path):
    write_evaluated(tmp_path, "avg", (0.7, 0.72))
    (tmp_path / "avg0" / "evaluate.json").unlink()
    (tmp_path / "avg1" / "evaluate.json").write_text(json.dumps({"format": 3}))
    assert rows_of(tmp_path) == {}
    older, command = notes_of(tmp_path)
    assert "avg1/evaluate.json has format 3 (expected 4)" in older
    assert command == (
        f"2 runs have no evaluation. Command for the first one: "
        f"python -m amtml_pl.evaluate latency=false run={tmp_path}/avg0"
    )


def test_one_missing_evaluation_is_one_run(tmp_path):
    write_evaluated(tmp_path, "avg", (0.7, 0.72))
    (tmp_path / "avg0" / "evaluate.json").unlink()
    (note,) = notes_of(tmp_path)
    assert note.startswith("1 run has no evaluation. ")


@pytest.mark.parametrize("selection", ["best", "last"])
def test_an_evaluation_of_the_last_epoch_counts_only_if_the_run_selects_it(tmp_path, selection):
    write_evaluated(tmp_path, "avg", (0.7,), checkpoint="last")
    write_run(
        tmp_path / "avg0", "x", 0, 0.75, typed="method=avg", budget={"selection": selection}, **TEACHERS
    )
    notes = notes_of(tmp_path)
    if selection == "last":
        assert (len(rows_of(tmp_path)), notes) == (2, [])
    else:
        assert rows_of(tmp_path) == {}
        assert notes[0] == f"{tmp_path}/avg0/evaluate.json is not of this run's selected epoch."
        assert "python -m amtml_pl.evaluate" in notes[1]


@pytest.mark.parametrize(
    "changes", [{"digest": "e" * 64}, {"seed": 7}, {"split": "val"}, {"dataset": {"own": False}}]
)
def test_an_evaluation_of_other_images_or_another_run_is_not_used(tmp_path, changes):
    write_evaluated(tmp_path, "avg", (0.7,))
    found = evaluation(0, VALUES)
    digest = changes.get("digest")
    changed = {"dataset": found["dataset"] | ({"digest": digest} if digest else changes.get("dataset", {}))}
    changed |= {name: value for name, value in changes.items() if name in ("seed", "split")}
    write_evaluation(tmp_path / "avg0", found | changed)
    assert rows_of(tmp_path) == {}
    assert "is not of this run's test images" in notes_of(tmp_path)[0]


def test_teachers_that_were_not_evaluated_are_named(tmp_path):
    write_evaluated(tmp_path, "avg", (0.7,), ensemble=None, left_out={"ensemble": "1 of 2 teachers"})
    assert notes_of(tmp_path) == ["avg: ensemble left out: 1 of 2 teachers"]


def test_runs_without_teachers_have_no_table(tmp_path):
    write_run(tmp_path / "ce", "x", 0, 0.6, typed="method=ce")
    assert evaluated(problem_of(tmp_path)) is None
    assert "What decides?" not in markdown([problem_of(tmp_path)], "test/acc")


def test_mixtures_that_do_not_depend_on_the_method_are_a_line_below_the_table(tmp_path):
    write_evaluated(tmp_path, "amtml", (0.74, 0.78))
    write_evaluated(tmp_path, "avg", (0.70, 0.72))
    accuracy, likelihood = mixture_tables(evaluated(problem_of(tmp_path)))
    assert accuracy.columns == ["group", "won per image", "weights per image"]
    assert accuracy.equal.startswith("Equal in all groups: n 2, student 0.7500 ± 0.0000, to win +0.2200 ± ")
    assert (accuracy.caption, likelihood.caption) == ("accuracy", "NLL")
    assert likelihood.equal in markdown([problem_of(tmp_path)], "test/acc")


def test_page_and_markdown_have_the_table_and_its_notes(tmp_path):
    write_evaluated(tmp_path, "a<b", (0.74, 0.78), absent={"per_teacher": "no <images>"})
    found = problem_of(tmp_path)
    text, html = markdown([found], "test/acc"), page([found], [], tmp_path, "test/acc", [])
    assert "### What decides?" in text
    assert "accuracy:\n\n| group | n | student | to win |" in text
    assert "| a&lt;b | 2 | 0.7500 ± 0.0000 | +0.2200 ± 0.0000 |" in text
    assert "one weight per teacher left out: no &lt;images&gt;" in text
    assert '<tr><th scope="row">a&lt;b</th><td class="number">2</td><td class="number">0.7500' in html
    assert "<li>a&lt;b: one weight per teacher left out: no &lt;images&gt;</li>" in html
