"""A comparison as Markdown, LaTeX and CSV."""

import csv
import io

import pytest

from amtml_pl.comparison.baseline import compare_with
from amtml_pl.comparison.found_runs import find_runs
from amtml_pl.comparison.groups import problems_of
from amtml_pl.comparison.tables import csv_of_groups, csv_of_runs, latex, markdown
from study import write_run


@pytest.fixture
def problems(tmp_path):
    for seed, gain in enumerate((0.01, 0.02, 0.06)):
        write_run(tmp_path / f"ce{seed}", "digits", seed, 0.9, told="method=ce")
        write_run(tmp_path / f"avg{seed}", "digits", seed, 0.9 + gain, told="method=avg 'loss=[a_b|c,50%]'")
    found = problems_of(find_runs(tmp_path, "test/acc").compared, "test/acc")
    compare_with(found, "ce", "test/acc")
    return found


def test_markdown_has_a_row_per_group_with_interval_difference_and_p(problems):
    rows = [line for line in markdown(problems, "test/acc").splitlines() if line.startswith("| ")]
    assert rows[2] == (
        "| avg loss=\\[a_b\\|c,50%\\] | 3 | 8 | 0.9300 ± 0.0265 | 0.9300 ± 0.0265 | 0.9300 ± 0.0265 "
        "| \\[0.8643, 0.9957\\] | +0.0300 | 0.1885 | 1.0 | equal |"
    )
    assert rows[3].endswith("| baseline |  | 1.0 | equal |")
    assert len(rows) == 4


def test_latex_is_a_booktabs_table_whose_text_is_escaped(problems):
    text = latex(problems, "test/acc")
    assert r"avg loss=[a\_b\textbar{}c,50\%] & 3 & 8 & 0.9300 $\pm$ 0.0265" in text
    for line in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrrrrrrrrrl}"):
        assert text.count(line) == 1


def test_a_name_is_no_markup_of_markdown_or_latex(tmp_path):
    for number, name in enumerate(("[x](http://a)", "*b*_c_", "`d`~~e~~$f$", "g\\_h")):
        write_run(tmp_path / str(number), name, 0, 0.9)
    found = problems_of(find_runs(tmp_path, "test/acc").compared, "test/acc")
    text = markdown(found, "test/acc")
    for escaped in (r"\[x\](http://a)", r"\*b\*\_c\_", r"\`d\`\~\~e\~\~\$f\$", r"g\\\_h"):
        assert f"| {escaped} |" in text
    assert r"{}[x](http://a) &" in latex(found, "test/acc")
    assert r"{}*b*\_c\_ &" in latex(found, "test/acc")


def test_a_difference_over_a_part_of_the_seeds_says_over_how_many(tmp_path):
    for method, seeds in {"ce": (0, 1), "avg": (0, 1, 2), "kd": (1, 5), "amtml": (0, 1)}.items():
        for seed in seeds:
            write_run(tmp_path / f"{method}{seed}", "digits", seed, 0.5 + seed / 10, told=f"method={method}")
    found = problems_of(find_runs(tmp_path, "test/acc").compared, "test/acc")
    compare_with(found, "ce", "test/acc")
    told = {row.split(" | ")[0]: row.split(" | ")[7] for row in markdown(found, "test/acc").splitlines()
            if row.startswith("| ")}  # fmt: skip
    assert told["| avg"] == "+0.0000 (2 seeds)"
    assert told["| kd"] == "+0.0000 (1 seed)"
    assert told["| amtml"] == "+0.0000"
    lines = csv.DictReader(io.StringIO(csv_of_groups(found, "test/acc")))
    assert {line["group"]: line["common_seeds"] for line in lines}["avg"] == "2"


def test_csv_has_a_line_per_run_and_another_file_a_line_per_group(problems):
    runs = list(csv.DictReader(io.StringIO(csv_of_runs(problems))))
    groups = list(csv.DictReader(io.StringIO(csv_of_groups(problems, "test/acc"))))
    assert [(run["group"], run["seed"]) for run in runs[:3]] == [
        ("avg loss=[a_b|c,50%]", str(n)) for n in range(3)
    ]
    assert len(runs) == 6
    assert float(groups[0]["difference"]) == pytest.approx(0.03)
    assert float(groups[0]["p"]) == pytest.approx(0.18851, abs=1e-4)
    assert groups[1]["baseline"] == "ce"


def test_what_a_run_calls_its_numbers_does_not_replace_what_tells_lines_apart(tmp_path):
    metrics = {"val/acc": 0.8, "test/acc": 0.9, "seed": 7.0, "group": 1.0, "folder": 2.0}
    write_run(tmp_path / "odd", "digits_ce", 3, 0.9, metrics=metrics)
    problems = problems_of(find_runs(tmp_path, "test/acc").compared, "test/acc")
    (line,) = csv.DictReader(io.StringIO(csv_of_runs(problems)))
    assert (line["group"], line["seed"], line["folder"]) == ("digits_ce", "3", str(tmp_path / "odd"))
    assert line["test/acc"] == "0.9"
