"""Cells of the tables of a comparison, in every format."""

import csv
import io

import pytest

from amtml_pl.comparison.latex import latex
from amtml_pl.comparison.markdown import markdown
from amtml_pl.comparison.spreadsheets import csv_of_groups
from amtml_pl.comparison.tables import cells, columns
from study import problems_in, write_run


def test_markdown_has_a_row_per_group_with_interval_difference_and_p(problems):
    rows = [line for line in markdown(problems, "test/acc").splitlines() if line.startswith("| ")]
    assert rows[2] == (
        "| avg loss=\\[a_b\\|c,50%\\] | 3 | 8 | best | 0.9300 ± 0.0265 | 0.9300 ± 0.0265 | 0.9300 ± 0.0265 "
        "| \\[0.8643, 0.9957\\] | +0.0300 | 0.1885 | 1.0 | equal |"
    )
    assert rows[3].endswith("| baseline |  | 1.0 | equal |")
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
    differences = {row[0]: row[8] for row in rows}
    assert differences["| avg"] == "+0.0000 (2 seeds)"
    assert differences["| kd"] == "+0.0000 (1 seed)"
    assert differences["| amtml"] == "+0.0000"
    lines = csv.DictReader(io.StringIO(csv_of_groups(found, "test/acc")))
    assert {line["group"]: line["common_seeds"] for line in lines}["avg"] == "2"


def test_a_number_of_fewer_seeds_has_their_count_and_one_of_none_has_no_column(tmp_path):
    for seed in range(3):
        some = {"weight_entropy_last": 0.8} if seed == 0 else {}
        write_run(tmp_path / str(seed), "digits", seed, 0.9, metrics={"weight_entropy": 0.5, **some})
    (problem,) = problems_in(tmp_path, metric="weight_entropy")
    head = columns(problem, "weight_entropy")
    assert "test/loss_last" not in columns(problem, "test/loss")
    row = cells(problem.groups[0], problem, "weight_entropy")
    assert row[head.index("weight_entropy_last")] == "0.8000 (1 seed)"
    assert row[head.index("weight_entropy")] == "0.5000 ± 0.0000"
