"""A comparison as CSV."""

import csv
import io

import pytest

from amtml_pl.comparison.spreadsheets import csv_of_groups, csv_of_runs
from study import problems_in, write_run


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


def test_a_metric_named_like_a_column_does_not_replace_the_column(tmp_path):
    metrics = {"val/acc": 0.8, "test/acc": 0.9, "seed": 7.0, "group": 1.0, "folder": 2.0}
    write_run(tmp_path / "odd", "digits_ce", 3, 0.9, metrics=metrics)
    problems = problems_in(tmp_path)
    (line,) = csv.DictReader(io.StringIO(csv_of_runs(problems)))
    assert (line["group"], line["seed"], line["folder"]) == ("digits_ce", "3", str(tmp_path / "odd"))
    assert line["test/acc"] == "0.9"


@pytest.mark.parametrize(
    ("text", "cell"),
    [*((text, f"'{text}") for text in ("=HYPERLINK(1)", "+coef.kd=1", "-1+1", "@SUM(1)")), ("\t=1", "' =1"),
     ("\r=1", "' =1"), ('x\n=1,"', 'x =1,"')],
)  # fmt: skip
def test_a_text_is_not_a_spreadsheet_formula_and_a_number_stays_one(tmp_path, text, cell):
    hostile = {"name": text, "digest": "d" * 64}
    write_run(tmp_path / "a", "a", 0, 0.9, metrics={"test/acc": 0.9, text: 0.5}, dataset=hostile)
    write_run(tmp_path / "b", "b", 0, 0.8, dataset=hostile)
    found = problems_in(tmp_path, baseline="a")
    for written in (csv_of_runs(found), csv_of_groups(found, "test/acc")):
        head, *rows = csv.reader(io.StringIO(written, newline=""))
        assert [row[head.index("dataset")] for row in rows] == [cell] * 2
    first, _ = csv.DictReader(io.StringIO(csv_of_runs(found), newline=""))
    assert first[cell] == "0.5"
    _, second = csv.DictReader(io.StringIO(csv_of_groups(found, "test/acc"), newline=""))
    assert float(second["difference"]) == pytest.approx(-0.1)


def test_a_group_named_by_an_added_key_is_a_text(tmp_path):
    for number in (1, 2):
        write_run(tmp_path / str(number), "small", 0, 0.9, typed=f"method=avg +coef.mine={number}")
    lines = csv.DictReader(io.StringIO(csv_of_groups(problems_in(tmp_path), "test/acc")))
    assert sorted(line["group"] for line in lines) == ["'+coef.mine=1", "'+coef.mine=2"]
