"""Time of the whole report command for 200 runs of 100 epochs."""

import subprocess
import sys

import pytest

from study import write_whole

METHODS = ("ce", "avg", "amtml", "camkd", "ebkd", "rkd", "dml", "okd", "kd", "aekd")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """200 runs: ten methods, four temperatures, five seeds; three teachers for all but one method."""
    folder = tmp_path_factory.mktemp("runs")
    for number, method in enumerate(METHODS):
        for temperature in (1, 2, 4, 8):
            for seed in range(5):
                run, accuracy = f"{method}-{temperature}-{seed}", 0.6 + 0.01 * number + 0.001 * temperature
                teachers = () if method == "ce" else ("resnet14", "vgg8", "wrn_10_1")
                typed = {"typed": f"temperature={temperature}", "temperature": temperature}
                write_whole(folder / run, method, seed, accuracy, 100, teachers, **typed)
    return folder


def test_two_hundred_runs_are_reported_within_ten_seconds(benchmark, runs, tmp_path):
    words = (f"runs={runs}", f"out={tmp_path}", "baseline='ce temperature=4'")
    command = [sys.executable, "-m", "amtml_pl.report", *words]
    benchmark.pedantic(subprocess.run, (command,), {"check": True, "capture_output": True}, rounds=5)
    assert "200 runs" in (tmp_path / "report.html").read_text()
    assert benchmark.stats["max"] < 10
