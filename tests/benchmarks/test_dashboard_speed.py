"""Time of the dashboard in a step: make benchmark. Recorded in docs/measurements/dashboard.md."""

import pytest
import torch

from amtml_pl.training.dashboard.teaching import Teaching


@pytest.mark.parametrize("classes", [10, 100])
def test_a_step_is_looked_at_in_less_than_a_millisecond(benchmark, classes):
    """128 images and three teachers: steps of the smallest networks here take tens of milliseconds."""
    generator = torch.Generator().manual_seed(0)
    teachers = torch.randn(128, 3, classes, generator=generator)
    weights = torch.softmax(torch.randn(128, 3, generator=generator), dim=1)
    labels = torch.randint(classes, (128,), generator=generator)
    student = torch.randn(128, classes, generator=generator)
    benchmark(Teaching.of, labels, teachers, weights, student, 4.0)
    assert benchmark.stats.stats.median < 1e-3
