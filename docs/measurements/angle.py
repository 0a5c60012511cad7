"""Compare the angle term, eager and compiled, with its definition, in turn.

    OMP_NUM_THREADS=1 python docs/measurements/angle.py [REPETITIONS]

Prints milliseconds of forward and backward at B = 128: medians, with the best in brackets.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from amtml_pl.losses.angle import angle_loss

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
from angle_oracle import naive_angle_loss

BATCH = 128


def main() -> None:
    """Measure, and print a Markdown table."""
    repetitions = int(sys.argv[1]) if sys.argv[1:] else 30
    sys.stdout.write("| K | eager | compiled | by its definition |\n|---|---|---|---|\n")
    for K in (10, 100):
        torch.manual_seed(0)
        student, target = (F.softmax(torch.randn(BATCH, K), dim=1) for _ in range(2))
        student.requires_grad_()
        ways = angle_loss, torch.compile(angle_loss, dynamic=False), naive_angle_loss
        for way in ways:
            way(student, target)  # the compiler works, and memory is allocated
        milliseconds: list[list[float]] = [[] for _ in ways]
        for _ in range(repetitions):
            for way, own in zip(ways, milliseconds, strict=True):
                start = time.perf_counter()
                torch.autograd.grad(way(student, target), student)
                own.append(1e3 * (time.perf_counter() - start))
        cells = [f"{statistics.median(own):.3g} ({min(own):.3g})" for own in milliseconds]
        sys.stdout.write(f"| {K} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
