"""docs/extending.md, followed word for word: a part of each kind, made outside of this repository."""

import json

import pytest


@pytest.mark.slow
def test_a_part_of_each_kind_takes_part_in_a_study(tmp_path, follow):
    output = follow("extending.md", tmp_path)
    assert "No problems found: every loss term trains the expected parameters." in output

    runs = tmp_path / "outputs" / "runs"
    records = {
        run.parent.name.split("-")[1]: json.loads(run.read_text()) for run in runs.glob("*/*/run.json")
    }
    assert {name: record["status"] for name, record in records.items()} == dict.fromkeys(
        ("avg", "consensus"), "completed"
    )
    ours = records["consensus"]
    assert ours["dataset"]["name"] == "arrays"
    assert ours["student"]["parameters"] == 1525
    assert list(ours["loss"]) == ["ce", "logit_regression"]
    assert ours["metrics"]["test/acc"] > 2 / 5  # of five classes; labels are learned
    table = (runs / "report" / "report.md").read_text()
    assert "difference from avg" in table
