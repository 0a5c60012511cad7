"""Cells of the tables of a comparison, in every format."""

import csv
import io

import pytest

from amtml_pl.comparison.latex import latex
from amtml_pl.comparison.markdown import markdown
from amtml_pl.comparison.page import page
from amtml_pl.comparison.spreadsheets import csv_of_groups
from amtml_pl.comparison.tables import cells, leaderboard
from study import problems_in, write_run


def test_markdown_has_a_row_per_group_with_interval_difference_and_p(problems):
    rows = [line for line in markdown(problems, "test/acc").splitlines() if line.startswith("| ")]
    assert rows[2] == (
        "| avg loss=\\[a_b\\|c,50%\\] | 0.9300 ± 0.0265 | 0.9300 ± 0.0265 | 0.9300 ± 0.0265 "
        "| \\[0.8643, 0.9957\\] | +0.0300 ± 0.0153 | 0.1885 (n = 3) | 0.1885 | 1.0 "
        "| unknown | `python -m amtml_pl.train -m experiment=digits method=avg 'loss=[a_b\\|c,50%]' "
        "seed=0,1,2` |"
    )
    assert " | baseline |  |  | 1.0 | " in rows[3]
    assert len(rows) == 4


@pytest.mark.parametrize("write", [markdown, latex])
def test_runs_left_out_and_groups_that_must_not_be_compared_are_named(tmp_path, write):
    write_run(tmp_path / "a", "digits", 0, 0.9, digest="a" * 64)
    write_run(tmp_path / "b", "digits", 0, 0.9, digest="b" * 64)
    text = write(problems_in(tmp_path), "test/acc", ["cut: interrupted", "evil\n\\end{document}: failed"])
    assert "2 pairs of data set and student: do not compare across tables." in text
    assert "cut: interrupted" in text
    assert not [line for line in text.splitlines() if line.startswith("\\end{document}")]
    assert "pairs of data set" not in write(problems_in(tmp_path / "a"), "test/acc")


def test_a_name_is_escaped_for_markdown_and_latex(tmp_path):
    for number, name in enumerate(("[x](http://a)", "*b*_c_", "`d`~~e~~$f$", "g\\_h")):
        write_run(tmp_path / str(number), name, 0, 0.9)
    found = problems_in(tmp_path)
    text = markdown(found, "test/acc")
    for escaped in (r"\[x\](http://a)", r"\*b\*\_c\_", r"\`d\`\~\~e\~\~\$f\$", r"g\\\_h"):
        assert f"| {escaped} |" in text
    assert r"{}[x](http://a) &" in latex(found, "test/acc")
    assert r"{}*b*\_c\_ &" in latex(found, "test/acc")


def test_a_difference_over_a_part_of_the_seeds_has_their_count(tmp_path):
    for method, seeds in {"ce": (0, 1), "avg": (0, 1, 2), "kd": (1, 5), "amtml": (0, 1)}.items():
        for seed in seeds:
            write_run(tmp_path / f"{method}{seed}", "digits", seed, 0.5 + seed / 10, typed=f"method={method}")
    found = problems_in(tmp_path, "ce")
    rows = [row.split(" | ") for row in markdown(found, "test/acc").splitlines() if row.startswith("| ")]
    differences = {row[0]: row[6] for row in rows}
    assert differences["| avg"] == "+0.0000 ± 0.0000 (2 seeds)"
    assert differences["| kd"] == "+0.0000 (1 seed)"
    assert differences["| amtml"] == "+0.0000 ± 0.0000"
    lines = csv.DictReader(io.StringIO(csv_of_groups(found, "test/acc")))
    assert {line["group"]: line["common_seeds"] for line in lines}["avg"] == "2"


def test_a_number_of_fewer_seeds_has_their_count_and_one_of_none_has_no_column(tmp_path):
    for seed in range(3):
        some = {"weight_entropy_last": 0.8} if seed == 0 else {}
        write_run(tmp_path / str(seed), "digits", seed, 0.9, metrics={"weight_entropy": 0.5, **some})
    (problem,) = problems_in(tmp_path, metric="weight_entropy")
    assert "test/loss_last" not in cells(problem.groups[0], problem, "test/loss")
    row = cells(problem.groups[0], problem, "weight_entropy")
    assert row["weight_entropy_last"] == "0.8000 (1 seed)"
    assert row["weight_entropy"] == "0.5000 ± 0.0000"


def test_what_is_equal_in_all_rows_is_a_sentence_and_not_a_column(tmp_path):
    for method, epochs in (("ce", 8), ("avg", 8), ("amtml", 16)):
        budget = {"epochs": epochs, "selection": "best"}
        write_run(tmp_path / method, "digits", 0, 0.9, typed=f"method={method}", budget=budget)
    (problem,) = problems_in(tmp_path)
    found = leaderboard(problem, "test/acc")
    assert found.equal == "Equal in all groups: n 1, selection best."
    assert not {"n", "selection"} & {*found.columns}
    assert "95 % interval" not in found.columns  # one seed each has none
    assert {"epochs", "budget"} <= {*found.columns}
    assert {len(row) for row in found.rows} == {len(found.columns)}
    assert found.equal in markdown([problem], "test/acc")


@pytest.mark.parametrize("groups", [5, 6])
def test_a_table_of_few_groups_has_no_filter(tmp_path, groups):
    for number in range(groups):
        write_run(tmp_path / str(number), "digits", 0, 0.9, typed=f"method=m{number}")
    html = page(problems_in(tmp_path), [], tmp_path, "test/acc", [])
    assert ('class="filter"' in html) is (groups > 5)


def test_a_table_with_one_row_has_all_columns(tmp_path):
    write_run(tmp_path / "one", "digits", 0, 0.9)
    (problem,) = problems_in(tmp_path)
    assert leaderboard(problem, "test/acc").equal == ""
    assert "epochs" in leaderboard(problem, "test/acc").columns


def markdown_cells(problems, column):
    """Return the cells of a leaderboard's column, by group."""
    rows = [row[2:-2].split(" | ") for row in markdown(problems, "test/acc").splitlines() if row[:2] == "| "]
    return {row[0]: row[rows[0].index(column)] for row in rows[2:]}


def test_every_p_has_its_number_of_seeds_and_the_value_corrected_for_all_groups_of_its_table(tmp_path):
    gains = {"ce": (0, 0, 0, 0), "kd": (1, 2, 3, 2), "avg": (1, 2, 4, 1), "dkd": (3, -2, 1), "one": (5,)}
    for method, values in gains.items():
        for seed, gain in enumerate(values):
            typed = f"method={method}"
            write_run(tmp_path / f"{method}{seed}", "digits", seed, 0.5 + gain / 100, typed=typed)
    write_run(tmp_path / "other", "digits", 0, 0.9, typed="method=ce", digest="e" * 64)
    (found, _) = problems_in(tmp_path, "ce")
    p = {group.name: group.against_baseline.p for group in found.groups}
    expected = {"kd": 3 * p["kd"], "avg": 2 * p["avg"], "dkd": p["dkd"]}  # three tests, in this order
    assert p["kd"] < p["avg"] < p["dkd"]
    assert markdown_cells([found], "p (Holm)") == {
        **{name: f"{value:.4f}" for name, value in expected.items()}, "ce": "", "one": "",
    }  # fmt: skip
    assert markdown_cells([found], "p") == {
        "kd": f"{p['kd']:.4f} (n = 4)", "avg": f"{p['avg']:.4f} (n = 4)", "dkd": f"{p['dkd']:.4f} (n = 3)",
        "one": "(1 seed)", "ce": "",
    }  # fmt: skip
    lines = csv.DictReader(io.StringIO(csv_of_groups([found], "test/acc")))
    written = {line["group"]: line["p_holm"] for line in lines if line["p_holm"]}
    assert {name: float(value) for name, value in written.items()} == pytest.approx(expected)


def test_a_leaderboard_names_commits_and_command(tmp_path):
    for seed in range(4):
        at = {"git": {"commit": f"{seed % 2}" * 40, "changed": seed % 2 == 1}}
        write_run(tmp_path / f"two{seed}", "x", seed, 0.9, typed="method=two", **at)
        many = {"git": {"commit": f"{seed}" * 40, "changed": False}}
        write_run(tmp_path / f"many{seed}", "x", seed, 0.8, typed="method=many temperature=2", **many)
    write_run(tmp_path / "one", "x", 7, 0.7, typed="method=one")
    found = problems_in(tmp_path)
    assert markdown_cells(found, "commit") == {
        "two": "0000000, 1111111+", "many temperature=2": "4 commits", "one": "unknown",
    }  # fmt: skip
    train = "python -m amtml_pl.train"
    assert markdown_cells(found, "command") == {
        "two": f"`{train} -m experiment=x method=two seed=0,1,2,3`",
        "many temperature=2": f"`{train} -m experiment=x method=many temperature=2 seed=0,1,2,3`",
        "one": f"`{train} experiment=x method=one seed=7`",
    }
