"""How long a report of 200 runs takes, as a whole process: make benchmark."""

import subprocess
import sys

from study import write_study

SECONDS = 10.0


def test_a_report_of_200_runs_of_100_epochs_takes_less_than_ten_seconds(benchmark, tmp_path):
    methods = [f"method{number}" for number in range(40)]
    write_study(tmp_path / "runs", methods, range(5), 100, ("resnet14", "vgg8", "wrn_10_1"))
    assert len([*tmp_path.rglob("run.json")]) == 200
    command = [sys.executable, "-m", "amtml_pl.report", "runs=runs", "baseline=method0"]

    def report():
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert benchmark.pedantic(report, rounds=5) == 0
    assert benchmark.stats.stats.max < SECONDS
