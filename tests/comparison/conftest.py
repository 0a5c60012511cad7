"""Runs to compare."""

import pytest

from study import problems_in, write_run


@pytest.fixture
def problems(tmp_path):
    """Return three seeds of a baseline and of a method whose name needs escapes."""
    for seed, gain in enumerate((0.01, 0.02, 0.06)):
        write_run(tmp_path / f"ce{seed}", "digits", seed, 0.9, typed="method=ce")
        write_run(tmp_path / f"avg{seed}", "digits", seed, 0.9 + gain, typed="method=avg 'loss=[a_b|c,50%]'")
    return problems_in(tmp_path, "ce")
