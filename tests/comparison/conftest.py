"""Runs to compare, as several tests write them down."""

import pytest

from study import problems_in, write_run


@pytest.fixture
def problems(tmp_path):
    """Three seeds of a baseline and of a method whose name has to be escaped."""
    for seed, gain in enumerate((0.01, 0.02, 0.06)):
        write_run(tmp_path / f"ce{seed}", "digits", seed, 0.9, told="method=ce")
        write_run(tmp_path / f"avg{seed}", "digits", seed, 0.9 + gain, told="method=avg 'loss=[a_b|c,50%]'")
    return problems_in(tmp_path, "ce")
