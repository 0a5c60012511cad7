"""Speed of the angle loss relative to its definition: make benchmark."""

import os
import statistics
import time

import pytest
import torch
import torch.nn.functional as F

from amtml_pl.losses.angle import angle_loss
from angle_oracle import naive_angle_loss

NAIVE_TENSORS = 5  # of B³ numbers that the definition holds at once, forward and backward


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("B", "K", "rounds"), [(128, 10, 60), (128, 100, 60), (1024, 10, 3)])
def test_forward_and_backward_against_the_definition(benchmark, capsys, B, K, rounds):
    """Measure both in turn in one process, since a shared machine's speed changes."""
    needed = NAIVE_TENSORS * 4 * B**3
    if os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") < needed:
        pytest.skip(f"the definition needs {needed / 2**30:.0f} GiB of free memory at B = {B}")
    generator = torch.Generator().manual_seed(0)
    student, target = (F.softmax(torch.randn(B, K, generator=generator), dim=1) for _ in range(2))
    student.requires_grad_()
    naive_seconds = []

    def naive():
        started = time.perf_counter()
        torch.autograd.grad(naive_angle_loss(student, target), student)
        naive_seconds.append(time.perf_counter() - started)

    def tiled():
        torch.autograd.grad(angle_loss(student, target), student)

    benchmark.pedantic(tiled, setup=naive, rounds=rounds, warmup_rounds=1)
    ratio = statistics.median(naive_seconds[1:]) / benchmark.stats.stats.median
    benchmark.extra_info["times_as_fast_as_the_definition"] = round(ratio, 2)
    with capsys.disabled():
        print(f"\nangle loss, B={B} K={K}: {ratio:.1f} times as fast as its definition")  # noqa: T201
