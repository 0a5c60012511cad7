"""Time until a mistake is reported, of a whole process: make benchmark."""

import subprocess
import sys

import pytest

from test_mistakes import CONSTRUCTORS, PARTS, TYPED, VALUES

SECONDS = {"typed": 1.5, "values": 1.5, "constructors": 10.0, "parts": 10.0}
STAGES = {"typed": TYPED, "values": VALUES, "constructors": CONSTRUCTORS, "parts": PARTS}
CASES = [(stage, words) for stage, mistakes in STAGES.items() for words in mistakes]


@pytest.mark.parametrize(("stage", "words"), [*CASES, ("typed", "--help"), ("values", "--cfg job")])
def test_a_mistake_is_reported_within_the_time_of_its_stage(benchmark, tmp_path, stage, words):
    command = [sys.executable, "-m", "amtml_pl.train", *words.split(" ")]

    def report():
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    status = benchmark.pedantic(report, rounds=3)
    assert status == (0 if words.startswith("--") else 2)
    assert benchmark.stats.stats.min < SECONDS[stage]
